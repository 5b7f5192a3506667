// Put into a page by checks.py: returns {check: [faults, each a sentence]} of the page as it is shown now.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  const words = (e) => `${e.tagName.toLowerCase()} "${(e.innerText || e.alt || "").trim().slice(0, 60)}"`;
  const wider = (e) => e.scrollWidth > e.clientWidth + 1;
  const faults = {};

  faults.cut = all("main pre, main .output, main .pst-scrollable-table-container, main figcaption")
    .filter((e) => e.clientWidth && wider(e))
    .map((e) => `${words(e)} is ${e.scrollWidth} pixels wide in ${e.clientWidth}`);
  for (const caption of all("main caption")) {
    const box = caption.closest(".output, .pst-scrollable-table-container") || document.querySelector("main");
    if (caption.getBoundingClientRect().right > box.getBoundingClientRect().right + 1)
      faults.cut.push(`${words(caption)} is wider than what is seen of its table`);
  }

  faults.sideways = document.documentElement.scrollWidth > window.innerWidth
    ? [`the page is ${document.documentElement.scrollWidth} pixels wide in ${window.innerWidth}`] : [];

  faults.images = [...document.querySelectorAll("main img")].flatMap((image) => {
    const file = new URL(image.src, document.baseURI).pathname.split("/").pop();
    if (!image.alt.trim() || image.alt.includes(file)) return [`${file} has no alt text`];
    return image.complete && image.naturalWidth ? [] : [`${file} has not loaded`];
  });

  const formulas = [...document.querySelectorAll("main .math")];
  const loaded = [...document.scripts].some((script) => /mathjax/i.test(script.src));
  faults.mathematics = formulas.filter((e) => !e.querySelector("mjx-container") || e.querySelector("mjx-merror"))
    .map((e) => `not set: ${e.textContent.trim().slice(0, 60)}`);
  if (loaded && !formulas.length) faults.mathematics.push("MathJax is loaded, and there is no mathematics");

  faults.anchors = [...document.querySelectorAll('a[href^="#"]')].map((a) => decodeURIComponent(a.hash.slice(1)))
    .filter((id) => id && !document.getElementById(id)).map((id) => `#${id} is not on the page`);

  faults.copying = all("main div.highlight > pre").filter((e) => !e.parentElement.querySelector("button.copybtn"))
    .map((e) => `${words(e)} has no button to copy it`);
  return faults;
}
