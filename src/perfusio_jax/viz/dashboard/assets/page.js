// Renews the page while it is open: asks for what has changed, and puts those parts in place.
// Without it everything still works; one loads the page again.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const LOST_AFTER_MS = 12000;
  const box = document.getElementById("parts");
  const live = document.getElementById("live");
  if (!box || !live) return;
  let version = document.body.dataset.version;
  let heard = Date.now();
  let changed = "";
  let failures = 0;
  let looking = false;
  let is_old = false;  // another program answers than the one that drew this page
  const held = new Map();

  const clock = () => new Date().toISOString().slice(11, 19) + " UTC";
  const parts = () => Array.from(box.children);
  const have = () =>
    version + ";" + parts().map((p) => p.id.slice(5) + "=" + (p.dataset.hash || "")).join(",");

  function say(text, lost) {
    if (live.dataset.at !== text) {
      live.textContent = text;
      live.dataset.at = text;
    }
    live.classList.toggle("lost", lost);
  }

  // What somebody is writing into is left alone until they are done.
  function busy(part) {
    if (part.contains(document.activeElement) &&
        document.activeElement.matches("input, select, textarea")) return true;
    return Array.from(part.querySelectorAll("input")).some(
      (i) => i.type !== "hidden" &&
        (i.value !== i.defaultValue || i.checked !== i.defaultChecked));
  }

  function put(part, fresh) {
    const open = new Set(Array.from(part.querySelectorAll("details[open]"), (d) => d.dataset.keep));
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const where = focused && (focused.getAttribute("href") || focused.getAttribute("formaction"));
    part.innerHTML = fresh.html;
    part.dataset.hash = fresh.hash;
    part.querySelectorAll("details[data-keep]").forEach((d) => {
      if (open.has(d.dataset.keep)) d.open = true;
    });
    if (focused) {
      const again = Array.from(part.querySelectorAll("a, button, summary")).find((e) =>
        where ? (e.getAttribute("href") || e.getAttribute("formaction")) === where
              : e.tagName === focused.tagName && e.textContent === focused.textContent);
      if (again) again.focus({preventScroll: true});
    }
  }

  function renew(told) {
    const known = new Map(parts().map((p) => [p.id, p]));
    let before = null;
    for (const name of told.order) {
      const id = "part-" + name;
      let part = known.get(id);
      const fresh = told.parts[name];
      if (!part) {
        if (!fresh) continue;
        part = document.createElement("div");
        part.className = "part";
        part.id = id;
      }
      known.delete(id);
      if (fresh) {
        if (busy(part)) held.set(id, fresh);
        else { held.delete(id); put(part, fresh); }
      }
      const next = before ? before.nextElementSibling : box.firstElementChild;
      if (part !== next) box.insertBefore(part, next);
      before = part;
    }
    for (const gone of known.values()) if (!busy(gone)) gone.remove();
    if (held.size === 0) version = told.version;  // else what is held back is asked for again
    changed = clock();
  }

  async function look() {
    if (looking) return;
    looking = true;
    try {
      const answer = await fetch(location.href, {
        headers: {"X-Have": have()}, cache: "no-store", credentials: "same-origin",
        signal: AbortSignal.timeout(10000),
      });
      if (answer.status === 401) { location.reload(); return; }
      if (is_old && !parts().some(busy)) { location.reload(); return; }
      if (answer.status !== 204) {
        if (!(answer.headers.get("content-type") || "").includes("json")) throw new Error("no parts");
        const told = await answer.json();
        // another program draws other pages: it is loaded whole, unless somebody is writing
        is_old = told.program !== document.body.dataset.program;
        if (is_old && !parts().some(busy)) { location.reload(); return; }
        renew(told);
      }
      failures = 0;
      heard = Date.now();
      say("In touch with the server" + (changed ? "; last change seen " + changed : "") + ".", false);
    } catch (error) {
      failures += 1;
      if (Date.now() - heard > LOST_AFTER_MS || failures > 1) {
        say("No word from the server since " + new Date(heard).toISOString().slice(11, 19) +
            " UTC: what stands here may be old.", true);
      }
    } finally {
      looking = false;
    }
  }

  async function go() {
    if (!document.hidden) await look();
    setTimeout(go, Math.min(EVERY_MS * (1 + failures), 10000));
  }
  // Sliders: what they are moved to stands in the address, and is asked for at once.
  const live_form = () => box.querySelector("form[data-live]");
  let again = null;

  // Whole steps away from what is in force, which need not be a round number.
  function chosen(slider) {
    const now = Number(slider.dataset.now), step = Number(slider.dataset.step);
    const moved = now + Math.round((Number(slider.value) - now) / step) * step;
    const inside = Math.min(Math.max(moved, Number(slider.min)), Number(slider.max));
    return Number(inside.toPrecision(9));
  }

  function show(form) {
    for (const slider of form.querySelectorAll("input[type=range]")) {
      slider.closest("label").querySelector("output").textContent =
        String(Number(chosen(slider).toPrecision(4)));
    }
  }

  function start(form) {
    for (const slider of form.querySelectorAll("input[type=range]")) {
      const tried = new URLSearchParams(location.search).get(slider.name);
      if (tried !== null && tried !== "") slider.value = tried;
    }
    form.querySelector("[data-plain]").hidden = true;
    show(form);
  }

  function ask(form) {
    show(form);
    const moved = Array.from(form.querySelectorAll("input[type=range]"))
      .filter((s) => chosen(s) !== Number(s.dataset.now)).map((s) => [s.name, chosen(s)]);
    const query = new URLSearchParams(moved).toString();
    history.replaceState(null, "", location.pathname + (query ? "?" + query : ""));
    clearTimeout(again);
    again = setTimeout(async function now() {
      if (looking) { again = setTimeout(now, 20); return; }
      version = "";
      await look();
    }, 40);
  }
  box.addEventListener("input", (e) => {
    const form = e.target.closest("form[data-live]");
    if (form) ask(form);
  });
  box.addEventListener("reset", (e) => {
    if (e.target.matches("form[data-live]")) setTimeout(() => ask(e.target), 0);
  });
  const seen = new WeakSet();
  new MutationObserver(() => {
    const form = live_form();
    if (form && !seen.has(form)) { seen.add(form); start(form); }
  }).observe(box, {childList: true, subtree: true});
  if (live_form()) { seen.add(live_form()); start(live_form()); }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setTimeout(go, EVERY_MS);
})();
