// Search as you type: shows the list of the filters without a new page. Without this script the form does the same.
(() => {
  "use strict";
  const PAUSE_MS = 250;
  const form = document.querySelector("form.filters");
  if (!form) return;
  let timer;
  let request;
  const show = async () => {
    request?.abort();
    request = new AbortController();
    const url = new URL(form.action);
    url.search = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    let page;
    try {
      const response = await fetch(url, { signal: request.signal });
      // An invalid value, or a session that has ended: the form itself shows why.
      if (!response.ok || response.redirected) return;
      page = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch {
      return;
    }
    for (const id of ["overview", "list"]) {
      const [shown, found] = [document.getElementById(id), page.getElementById(id)];
      if (shown && found) shown.replaceWith(found);
    }
    const [status, found] = [document.getElementById("found"), page.getElementById("found")];
    if (status && found) status.textContent = found.textContent;
    history.replaceState(null, "", url);
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, PAUSE_MS);
  });
})();
