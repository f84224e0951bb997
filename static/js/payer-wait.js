// The payer's page that waits for a payment: asks now and then whether there is news, and only then loads it.
// Without script, and for whoever does not want to wait, there is the link "Check again".
"use strict";
(() => {
  const LONGEST = 30_000;
  let pause = 2_000;

  async function look() {
    const answer = await fetch(window.location.href, { method: "HEAD", cache: "no-store" }).catch(() => null);
    // Without a network there is no answer: the next look may have one.
    if (answer && !answer.headers.has("X-Payment-Working")) {
      window.location.reload();
      return;
    }
    pause = Math.min(pause * 1.3, LONGEST);
    setTimeout(look, pause);
  }

  setTimeout(look, pause);
})();
