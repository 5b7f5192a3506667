"""`python -m benchmarks`: see :mod:`benchmarks.command`. The processes of the sides begin here too, and import no more than this."""

if __name__ == "__main__":
    from benchmarks.command import main

    raise SystemExit(main())
