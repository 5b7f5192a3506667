/* Parts of a page that answer to mouse, touch and keyboard, without a server: they work from file:// too.

   In:  every element with data-explore="attention | sentences | features | volume"; numbers and pictures of explore/ beside this file, which
        tools/make_explore.py makes. Numbers come by <script>: a page that was opened from a disk may not fetch.
   Out: the element is filled and carries data-ready="yes"; where something is missing its still picture stays and it carries
        data-ready="no". Without scripts the <noscript> in it shows the still picture. */
(() => {
  "use strict";
  const base = new URL("explore/", document.currentScript.src);
  const parts = (window.textdiffExplore = {});
  const SHARES = { worst: "worst", tenth: "10 %", median: "middle", ninetieth: "90 %" };
  const SENTENCES = { own: "its own", swapped: "left and right exchanged", shuffled: "another film’s", empty: "none" };
  const PLANES = ["sagittal", "coronal", "axial"];
  const PIXELS = 8; // of the canvas a voxel

  // --- elements, scripts, pictures --------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const drawn = tag === "svg" || tag === "path";
    const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  const asked = {};
  const numbersOf = (name) =>
    (asked[name] ??= new Promise((done, failed) => {
      const script = make("script", { src: new URL(`${name}.js`, base) });
      script.onload = () => (parts[name] ? done(parts[name]) : failed(new Error(`${name}.js is empty`)));
      script.onerror = () => failed(new Error(`${name}.js cannot be read`));
      document.head.append(script);
    }));

  const picture = (name) =>
    new Promise((done, failed) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => failed(new Error(`${name} cannot be read`));
      image.src = new URL(name, base);
    });

  /* A set of radio buttons: arrow keys work by themselves. rows: [value, content of the label]. */
  function choice(box, name, title, rows, chosen, change, look = "") {
    const group = `${box.id}-${name}`;
    const labels = rows.map(([value, ...content]) =>
      make(
        "label",
        {},
        make("input", { type: "radio", name: group, value, checked: value === chosen, "data-choice": name, onchange: () => change(value) }),
        make("span", {}, ...content),
      ),
    );
    return make("fieldset", { class: `explore-choice ${look}`, "data-group": name }, make("legend", {}, title), ...labels);
  }

  function toggle(name, content, checked, change) {
    const input = make("input", { type: "checkbox", checked, "data-toggle": name, onchange: () => change(input.checked) });
    return make("label", { class: `explore-toggle explore-${name}` }, input, make("span", {}, content));
  }

  function slider(box, name, title, most, value, change) {
    const id = `${box.id}-${name}`;
    const said = make("output", { for: id });
    const input = make("input", { type: "range", id, min: 0, max: most, value, "data-slider": name });
    const set = (text) => {
      said.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    input.addEventListener("input", () => change(Number(input.value)));
    return { input, set, row: make("div", { class: "explore-slider" }, make("label", { for: id }, title, " ", said), input) };
  }

  const live = () => make("p", { class: "explore-said", role: "status", "aria-live": "polite", "data-said": "" });
  const percent = (share) => `${Math.round(100 * share)} %`;
  const shown = (dice) => dice.toFixed(2);

  // --- a film with outlines ---------------------------------------------------------------------------

  async function filmsOf() {
    const data = await numbersOf("films");
    await Promise.all(data.films.map((film) => picture(film.picture)));
    return data;
  }

  function filmView(side) {
    const line = (kind) => [
      make("path", { class: "explore-halo", "data-halo": kind }),
      make("path", { class: `explore-line-${kind}`, "data-line": kind }),
    ];
    const lines = { truth: line("truth"), answer: line("answer") };
    const image = make("img");
    const canvas = make("canvas", { width: 320, height: 320, "aria-hidden": "true" });
    const svg = make("svg", { viewBox: `0 0 ${side} ${side}`, "aria-hidden": "true" }, ...lines.truth, ...lines.answer);
    const view = make("div", { class: "explore-film" }, image, canvas, svg);
    return {
      view,
      canvas,
      film: (file) => image.setAttribute("src", new URL(file, base)),
      draw: (kind, path) => lines[kind].forEach((one) => one.setAttribute("d", path)),
      say: (text) => image.setAttribute("alt", text),
    };
  }

  const films = (box, data, chosen, change) =>
    choice(box, "film", "Test film, by Dice", data.films.map((film) => [film.key, SHARES[film.key] ?? film.key]), chosen, change, "explore-row");

  // --- attention: where a word is read ----------------------------------------------------------------

  async function attention(box) {
    const data = await filmsOf();
    const sprite = await picture(data.sprite);
    const view = filmView(data.side);
    const words = make("div", { class: "explore-words", role: "group", "aria-label": "Words of the sentence" });
    const said = live();
    const state = { film: data.films.find((film) => film.key === "median"), word: null, truth: true, answer: true };

    function drawWord(word) {
      const { canvas } = view;
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      if (!word) return;
      const [column, row] = [word.cell % data.columns, Math.floor(word.cell / data.columns)];
      pen.drawImage(sprite, column * data.cell, row * data.cell, data.cell, data.cell, 0, 0, canvas.width, canvas.height);
    }

    function show(word) {
      const own = state.film.sentences[0];
      drawWord(word);
      view.draw("truth", state.truth ? state.film.truth : "");
      view.draw("answer", state.answer ? own.outline : "");
      const read = word
        ? `“${word.word}” takes ${percent(word.mean)} of the attention over the film, and ${percent(word.most)} where it is read most.`
        : "No word is chosen.";
      said.textContent = `${read} Dice of the marked area: ${shown(own.dice)}.`;
      view.say(`Chest film ${state.film.case} with the sentence “${own.text}”. ${said.textContent}`);
    }

    function choose(word) {
      state.word = word;
      for (const button of words.querySelectorAll("button")) {
        const on = word !== null && Number(button.dataset.word) === word.cell;
        button.setAttribute("aria-pressed", String(on));
        if (word) button.tabIndex = on ? 0 : -1; // without a word the tab key still comes back to the last one
      }
      show(word);
    }

    function move(event, button) {
      const buttons = [...words.querySelectorAll("button")];
      const at = buttons.indexOf(button);
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (event.key === "Escape") choose(null);
      if (to === undefined) return;
      event.preventDefault();
      const next = buttons[(to + buttons.length) % buttons.length];
      choose(state.film.words.find((word) => word.cell === Number(next.dataset.word)));
      next.focus();
    }

    function asButton(word) {
      const button = make("button", { type: "button", "data-word": word.cell, "aria-pressed": "false" }, word.word);
      button.addEventListener("click", () => choose(state.word === word ? null : word));
      button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(word));
      button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(state.word));
      button.addEventListener("keydown", (event) => move(event, button));
      return button;
    }

    function showFilm(key) {
      state.film = data.films.find((film) => film.key === key);
      view.film(state.film.picture);
      words.replaceChildren(
        ...state.film.words.map((word) => (word.cell === undefined ? make("span", {}, word.word) : asButton(word))),
      );
      const readable = state.film.words.filter((word) => word.cell !== undefined);
      choose(readable.reduce((best, word) => (word.most > best.most ? word : best)));
    }

    const switched = (name) => (on) => {
      state[name] = on;
      show(state.word);
    };
    const side = make(
      "div",
      { class: "explore-side" },
      films(box, data, "median", showFilm),
      make("p", { class: "explore-title" }, "Its sentence: point at a word, tap it, or use the arrow keys"),
      words,
      said,
      make(
        "div",
        { class: "explore-toggles" },
        toggle("answer", "what the model marks", true, switched("answer")),
        toggle("truth", "what was outlined by hand", true, switched("truth")),
      ),
    );
    showFilm("median");
    return [view.view, side];
  }

  // --- sentences: what changes with the words ---------------------------------------------------------

  async function sentences(box) {
    const data = await filmsOf();
    const view = filmView(data.side);
    const said = live();
    const rows = make("div");
    const state = { film: data.films[0], kind: "own" };

    function show(kind) {
      state.kind = kind;
      const told = state.film.sentences.find((sentence) => sentence.kind === kind);
      view.draw("answer", told.outline);
      said.textContent = `Sentence: ${SENTENCES[kind]}. Dice ${shown(told.dice)}${told.outline ? "" : "; nothing is marked"}.`;
      view.say(`Chest film ${state.film.case}. ${said.textContent}`);
    }

    function showFilm(key) {
      state.film = data.films.find((film) => film.key === key);
      view.film(state.film.picture);
      view.draw("truth", state.film.truth);
      const own = state.film.sentences[0].text;
      const row = ({ kind, text, dice }) => {
        const same = kind !== "own" && text === own ? " (no change: it names both sides alike)" : "";
        const words = make("span", { class: "explore-text" }, make("b", {}, SENTENCES[kind] + same), make("br"), text || "—");
        return [kind, words, make("span", { class: "explore-dice", "data-dice": kind }, shown(dice))];
      };
      rows.replaceChildren(
        choice(box, "sentence", "Sentence, and the Dice it brings", state.film.sentences.map(row), state.kind, show, "explore-list"),
      );
      show(state.kind);
    }

    showFilm("worst");
    return [view.view, make("div", { class: "explore-side" }, films(box, data, "worst", showFilm), rows, said, legend())];
  }

  const legend = () =>
    make(
      "p",
      { class: "explore-toggles" },
      make("span", { class: "explore-answer" }, make("span", {}, "what the model marks")),
      make("span", { class: "explore-truth" }, make("span", {}, "what was outlined by hand")),
    );

  // --- features: noise step and block -----------------------------------------------------------------

  async function features(box) {
    const data = await numbersOf("features");
    const [sprite, noised] = await Promise.all([picture(data.sprite), picture(data.noised)]);
    const said = live();
    const state = { step: 1, block: 4 };
    const views = ["noised", "seen"].map((name) =>
      make("canvas", { width: 320, height: 320, class: "explore-film", role: "img", "data-view": name }),
    );
    const step = slider(box, "step", "Noise step", data.steps.length - 1, state.step, (value) => show({ step: value }));
    const block = slider(box, "block", "Block", data.dice.length - 1, state.block, (value) => show({ block: value }));
    const known = data.dice.flat().filter((dice) => dice !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const cells = data.dice.map((row, b) =>
      row.map((dice, s) => {
        const cell = make("td", { "data-cell": `${b},${s}`, onclick: () => show({ block: b, step: s }) }, dice === null ? "–" : shown(dice));
        if (dice !== null) cell.style.setProperty("--strength", `${Math.round(5 + (65 * (dice - low)) / (high - low))}%`);
        return cell;
      }),
    );

    function drawTile(canvas, image, column, row) {
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(image, column * data.tile, row * data.tile, data.tile, data.tile, 0, 0, canvas.width, canvas.height);
    }

    function show(change) {
      Object.assign(state, change);
      const [b, s] = [state.block, state.step];
      const [channels, height, width] = data.shapes[b];
      step.input.value = s;
      block.input.value = b;
      step.set(String(data.steps[s]));
      block.set(`${b}`);
      drawTile(views[0], noised, s, 0);
      drawTile(views[1], sprite, s, b);
      cells.flat().forEach((cell) => cell.classList.toggle("explore-here", cell === cells[b][s]));
      const dice = data.dice[b][s];
      const probe = dice === null ? "not measured" : `Dice ${shown(dice)}, without training ${shown(data.untrained[b][s])}`;
      said.textContent = `Block ${b} (${channels} channels, ${height} × ${width}) at step ${data.steps[s]}: ${probe}.`;
      views[0].setAttribute("aria-label", `Chest film ${data.case} at noise step ${data.steps[s]}`);
      views[1].setAttribute("aria-label", `Features as colours. ${said.textContent}`);
    }

    const head = make("tr", {}, make("th", { scope: "col" }, "block"), ...data.steps.map((one) => make("th", { scope: "col" }, String(one))));
    const body = cells.map((row, b) => make("tr", {}, make("th", { scope: "row" }, String(b)), ...row));
    const table = make("table", { class: "explore-heat" }, make("caption", {}, "Dice of a linear probe, by block and noise step"), make("thead", {}, head), make("tbody", {}, ...body));
    show({});
    const pair = make("div", { class: "explore-pair" }, ...views, step.row, block.row, said);
    return [pair, make("div", { class: "explore-side" }, table)];
  }

  // --- a volume in three planes -----------------------------------------------------------------------

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

  /* How a plane lies in the volume: its size, and the voxel behind a pixel. Right and front are on the left, head or front above. */
  function planeOf([nx, ny, nz], axis) {
    const at = (x, y, z) => (x * ny + y) * nz + z;
    return [
      { width: ny, height: nz, depth: nx, voxel: (u, v, slice) => at(slice, ny - 1 - u, nz - 1 - v) },
      { width: nx, height: nz, depth: ny, voxel: (u, v, slice) => at(nx - 1 - u, slice, nz - 1 - v) },
      { width: nx, height: ny, depth: nz, voxel: (u, v, slice) => at(nx - 1 - u, ny - 1 - v, slice) },
    ][axis];
  }

  function pixelsOf(plane, slice, colour) {
    const small = make("canvas", { width: plane.width, height: plane.height });
    const image = new ImageData(plane.width, plane.height);
    for (let v = 0, to = 0; v < plane.height; v++)
      for (let u = 0; u < plane.width; u++, to += 4) image.data.set(colour(plane.voxel(u, v, slice)), to);
    small.getContext("2d").putImageData(image, 0, 0);
    return small;
  }

  function borderOf(plane, slice, labels) {
    const path = new Path2D();
    const value = (u, v) => (u < plane.width && v < plane.height ? labels[plane.voxel(u, v, slice)] : 0);
    for (let v = 0; v < plane.height; v++)
      for (let u = 0; u < plane.width; u++) {
        if (value(u, v) !== value(u + 1, v)) path.rect((u + 1) * PIXELS, v * PIXELS, 0, PIXELS);
        if (value(u, v) !== value(u, v + 1)) path.rect(u * PIXELS, (v + 1) * PIXELS, PIXELS, 0);
      }
    return path;
  }

  function widest(plane, labels) {
    const counts = Array.from({ length: plane.depth }, (_, slice) => {
      let count = 0;
      for (let v = 0; v < plane.height; v++) for (let u = 0; u < plane.width; u++) count += labels[plane.voxel(u, v, slice)] > 0;
      return count;
    });
    return counts.indexOf(Math.max(...counts));
  }

  async function slices(box) {
    const data = await numbersOf("volume");
    const [image, truth] = await Promise.all([data.image, data.truth].map(unpacked));
    const answers = await Promise.all(
      data.answers.map(async (one) => ({ ...one, labels: await unpacked(one.labels), uncertainty: await unpacked(one.uncertainty) })),
    );
    const colours = data.colours.map(channels);
    const said = live();
    const state = { answer: answers[0], overlay: "labels", strength: 50, truth: true };
    const views = PLANES.map((name, axis) => {
      const plane = planeOf(data.shape, axis);
      const canvas = make("canvas", { width: plane.width * PIXELS, height: plane.height * PIXELS, class: "explore-plane", role: "img", "data-view": name });
      const view = { name, plane, canvas, slice: widest(plane, truth) };
      view.slider = slider(box, name, name, plane.depth - 1, view.slice, (value) => draw(Object.assign(view, { slice: value })));
      return view;
    });

    function colourOf(voxel) {
      const alpha = Math.round(2.55 * state.strength);
      if (state.overlay === "uncertainty") return [204, 121, 167, Math.round((state.answer.uncertainty[voxel] * 2 * alpha) / 255)];
      const label = state.answer.labels[voxel];
      return label ? [...colours[label - 1], alpha] : [0, 0, 0, 0];
    }

    function draw(view) {
      const { plane, canvas, slice } = view;
      const pen = canvas.getContext("2d");
      const put = (small, smooth) => {
        pen.imageSmoothingEnabled = smooth;
        pen.drawImage(small, 0, 0, canvas.width, canvas.height);
      };
      put(pixelsOf(plane, slice, (voxel) => [image[voxel], image[voxel], image[voxel], 255]), true);
      put(pixelsOf(plane, slice, colourOf), state.overlay === "uncertainty");
      if (state.truth) {
        const border = borderOf(plane, slice, truth);
        for (const [width, colour] of [[4.5, "#000"], [2, "#f0e442"]]) {
          Object.assign(pen, { lineWidth: width, strokeStyle: colour });
          pen.stroke(border);
        }
      }
      view.slider.set(`slice ${slice + 1} of ${plane.depth}`);
      canvas.setAttribute("aria-label", `${view.name} slice ${slice + 1} of ${plane.depth}. ${said.textContent}`);
    }

    function show(change) {
      Object.assign(state, change);
      const dice = Object.entries(state.answer.dice).map(([name, value]) => `${name} ${shown(value)}`);
      said.textContent = `Asked for: ${state.answer.text}. Dice: ${dice.join(", ")}.`;
      views.forEach(draw);
    }

    const rows = answers.map((one, i) => [String(i), one.text]);
    const strength = slider(box, "strength", "Strength", 100, state.strength, (value) => {
      strength.set(`${value} %`);
      show({ strength: value });
    });
    strength.set(`${state.strength} %`);
    const names = data.structures.map((name, i) => {
      const spot = make("i", { class: "explore-spot" });
      spot.style.background = data.colours[i];
      return make("span", {}, spot, name);
    });
    show({});
    return [
      make("div", { class: "explore-planes" }, ...views.map((view) => make("div", {}, view.canvas, view.slider.row))),
      make(
        "div",
        { class: "explore-side" },
        choice(box, "sentence", "Sentence", rows, "0", (value) => show({ answer: answers[value] })),
        choice(box, "overlay", "Shown", [["labels", "what is marked"], ["uncertainty", `how unsure it is, by ${data.samples} draws`]], "labels", (value) => show({ overlay: value })),
        strength.row,
        said,
        make("p", { class: "explore-toggles" }, ...names, toggle("truth", "what was outlined by hand", true, (on) => show({ truth: on }))),
      ),
    ];
  }

  /* Nothing is loaded before the reader asks for it: the still picture stays until then. */
  async function volume(box) {
    const still = make("img", { class: "explore-still", src: new URL(box.dataset.still, base), alt: box.dataset.alt });
    const button = make("button", { type: "button", class: "explore-load", "data-load": "" }, "Load the volume");
    const said = live();
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const filled = await slices(box);
        box.replaceChildren(...filled);
        box.dataset.loaded = "yes";
        box.querySelector("input").focus();
      } catch (error) {
        button.remove();
        said.textContent = `The volume cannot be shown here (${error.message}); the picture stays.`;
        box.dataset.loaded = "no";
      }
    });
    return [still, button, said];
  }

  // --- all of a page ----------------------------------------------------------------------------------

  const KINDS = { attention, sentences, features, volume };

  async function setUp(box) {
    box.id ||= `explore-${box.dataset.explore}`;
    try {
      const filled = await KINDS[box.dataset.explore](box);
      box.replaceChildren(...filled);
      box.dataset.ready = "yes";
    } catch (error) {
      box.replaceChildren(make("img", { class: "explore-still", src: new URL(box.dataset.still, base), alt: box.dataset.alt }));
      box.dataset.ready = "no";
      console.warn(`explore ${box.dataset.explore}: ${error.message}`);
    }
  }

  document.querySelectorAll("[data-explore]").forEach(setUp);
})();
