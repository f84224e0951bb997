// News on the dashboard as they happen. Where the stream does not run, the page goes on polling as before.
"use strict";
(() => {
  const live = document.querySelector("[data-stream]");
  const news = document.querySelector("[data-stream-news]");
  if (!live || !news || !window.EventSource || !window.htmx) return;
  let source = null;
  let refresh = null;

  function tell(event) {
    const told = JSON.parse(event.data);
    const invoice = told.data.invoice.number || told.data.invoice.id;
    news.textContent = `${invoice}: ${told.data.message}`;
    news.hidden = false;
    // Many events at once are one look at the figures.
    refresh ??= setTimeout(() => {
      refresh = null;
      window.htmx.trigger(live, "news");
    }, 1000);
  }

  // A tab that nobody looks at holds no connection; the poll fetches what it missed.
  function follow() {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(live.dataset.stream, { withCredentials: true });
      for (const name of live.dataset.streamNames.split(" ")) source.addEventListener(name, tell);
    }
  }

  document.addEventListener("visibilitychange", follow);
  follow();
})();
