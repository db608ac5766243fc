// The report of evaluate.py: sorts and filters tables, and plays words. Without it everything can still be read.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // Tables: a button in each head; numbers from large to small first, texts by the alphabet.
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const descending = before ? before === "ascending" : isNumber;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const collator = new Intl.Collator(document.documentElement.dataset.texts || undefined, { numeric: true });
        const compare = isNumber ? (a, b) => Number(a) - Number(b) : collator.compare;
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        rows.sort(([a], [b]) => (descending ? compare(b, a) : compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // The filter: every word that is typed must be in the row.
  const plain = (text) => text.normalize("NFC").toLowerCase();
  for (const form of all("form.tools")) {
    const table = document.getElementById(form.dataset.table);
    const rows = [...table.tBodies[0].rows].map((row) => [plain(row.textContent), row]);
    const search = form.querySelector("input[type=search]");
    const wrong = form.querySelector("input[type=checkbox]");
    const output = form.querySelector("output");
    const apply = () => {
      const words = plain(search.value).split(/\s+/).filter(Boolean);
      let count = 0;
      for (const [text, row] of rows) {
        row.hidden = !words.every((word) => text.includes(word)) || (wrong.checked && row.dataset.wrong !== "1");
        count += row.hidden ? 0 : 1;
      }
      output.textContent = `${count} of ${rows.length}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // Sounds: one at a time, a line through the spectrogram, the word that is heard now; a word plays when it is clicked.
  const sounds = all("audio");
  for (const article of all("article")) {
    const audio = article.querySelector("audio");
    if (!audio) continue;
    const seconds = Number(article.dataset.seconds);
    const playhead = article.querySelector(".playhead");
    const words = all("button[data-start]", article);
    let stop = Infinity;
    const show = () => {
      const now = audio.currentTime;
      if (now >= stop) {
        stop = Infinity;
        audio.pause();
      }
      if (playhead) playhead.style.left = `${(100 * Math.min(now, seconds)) / seconds}%`;
      for (const word of words) {
        const isNow = Number(word.dataset.start) <= now && now < Number(word.dataset.end);
        word.closest("li").classList.toggle("now", isNow && !audio.paused);
      }
    };
    const follow = () => {
      show();
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", () => {
      sounds.forEach((other) => other !== audio && other.pause());
      follow();
    });
    for (const name of ["pause", "seeked", "timeupdate"]) audio.addEventListener(name, show);
    audio.addEventListener("pause", () => (stop = Infinity));
    for (const word of words) {
      word.addEventListener("click", () => {
        audio.pause();
        audio.currentTime = Math.max(0, Number(word.dataset.start) - 0.05);
        audio.play().then(() => (stop = Number(word.dataset.end) + 0.15), () => {});
      });
    }
    const picture = article.querySelector(".timeline > div");
    if (picture) {
      picture.addEventListener("click", (event) => {
        const box = picture.getBoundingClientRect();
        audio.currentTime = (seconds * (event.clientX - box.left)) / box.width;
      });
    }
  }
})();
