// Listening, keys, corrections, questions. What the server says is put in as text, never as markup, but for the pieces
// that its own templates made (details).
(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var rows = document.getElementById("rows"), who = document.getElementById("who"), say = document.getElementById("say");
  var playing = null, here = null, saying = 0;

  function each(list, what) { Array.prototype.forEach.call(list, what); }
  function make(tag, kind, text) {
    var node = document.createElement(tag);
    if (kind) { node.className = kind; }
    if (text) { node.textContent = text; }
    return node;
  }
  function tell(text) {
    say.textContent = text;
    clearTimeout(saying);
    saying = setTimeout(function () { say.textContent = ""; }, 4000);
  }
  function part(row, name) { return row.querySelector(name); }
  function path(row) { return "/api/rows/" + row.dataset.run + "/" + row.dataset.row; }

  // -- who ------------------------------------------------------------------------------------------------------------
  try { who.value = localStorage.getItem("mats-who") || who.value; } catch (ignored) { /* a browser that keeps nothing */ }
  who.addEventListener("change", function () {
    try { localStorage.setItem("mats-who", who.value.trim()); } catch (ignored) { /* as above */ }
  });
  function name() {
    var known = who.value.trim();
    if (!known) { who.focus(); tell("Who are you? Corrections carry a name."); }
    return known;
  }

  // -- listening ------------------------------------------------------------------------------------------------------
  each(document.querySelectorAll("[data-left]"), function (mark) { mark.style.left = mark.dataset.left + "%"; });
  each(rows.querySelectorAll("figure"), function (figure) {
    var audio = part(figure, "audio"), head = part(figure, "i"), button = part(figure, ".play");
    function mark() {
      head.style.opacity = 1;
      head.style.left = 100 * (audio.duration ? Math.min(1, audio.currentTime / audio.duration) : 0) + "%";
      if (!audio.paused) { requestAnimationFrame(mark); }
    }
    audio.addEventListener("play", function () { button.classList.add("on"); mark(); });
    audio.addEventListener("pause", function () { button.classList.remove("on"); });
    audio.addEventListener("seeked", mark);
    audio.addEventListener("ended", function () { head.style.opacity = 0; });
    audio.addEventListener("error", function () { note(figure.closest(".row"), "This sound cannot be read any more."); });
    part(figure, "img").addEventListener("error", function (event) { event.target.alt = "No picture: the sound cannot be read"; });
  });
  function play(row, at) {
    var figure = part(row, "figure"), audio = figure && part(figure, "audio");
    if (!audio) { return; }
    if (at === undefined && !audio.paused) { audio.pause(); return; }
    if (playing && playing !== audio) { playing.pause(); }
    playing = audio;
    function seek() { if (at !== undefined) { audio.currentTime = Math.min(at, 0.999 * audio.duration); } audio.play(); }
    if (at === undefined && !audio.dataset.begun) { at = +figure.dataset.from || undefined; }
    audio.dataset.begun = "1";
    if (at === undefined || audio.readyState > 0) { seek(); } else {
      audio.addEventListener("loadedmetadata", seek, {once: true});
      audio.preload = "metadata";
      audio.load();
    }
  }

  // -- a row as it stands ---------------------------------------------------------------------------------------------
  function note(row, text) {
    var place = part(row, ".note");
    if (place) { place.textContent = text || ""; place.hidden = !text; } else if (text) { tell(text); }
  }
  function show(row, now) {
    var said = now.correction;
    row.dataset.version = now.version;
    row.dataset.mark = said && said.mark || "";
    part(row, ".answer").textContent = now.text || now.answer || "(no words)";
    part(row, ".answer").classList.toggle("unsure", now.text === null && now.answer !== null);
    part(row, '[data-do="undo"]').hidden = !now.version;
    var chips = part(row, ".chips");
    each(chips.querySelectorAll(".said"), function (old) { old.remove(); });
    each(chips.querySelectorAll(".sure"), function (sure) { sure.hidden = now.confidence === null; });
    if (said) {
      if (said.mark) { chips.appendChild(make("li", "chip said " + said.mark, said.mark === "right" ? "✓ right" : "✗ wrong")); }
      (said.labels || []).forEach(function (label) { chips.appendChild(make("li", "chip said label", label)); });
      chips.appendChild(make("li", "said by", (said.text === null ? "seen by " : "corrected by ") + said.by + ", " + said.at.replace("T", " ").replace("Z", " UTC")));
    }
    var details = part(row, ".words > .details");
    details.dataset.loaded = "";
    if (details.open) { details.open = false; details.open = true; }
  }
  function fill(row, now) {
    part(row, "textarea").value = now.text || now.answer || "";
    part(row, '.edit [name="labels"]').value = (now.correction && now.correction.labels || []).join(", ");
  }
  function post(to, body) {
    return fetch(to, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)})
      .then(function (answer) { return answer.json().catch(function () { return {}; }).then(function (told) { return {ok: answer.ok, status: answer.status, told: told}; }); })
      .catch(function () { return {ok: false, status: 0, told: {detail: "The server does not answer."}}; });
  }
  function why(found) { return typeof found.told.detail === "string" ? found.told.detail : "That was not taken (" + found.status + ")."; }
  function change(row, to, body) {
    var by = name();
    if (!by) { return Promise.resolve(false); }
    body.seen = +row.dataset.version;
    body.by = by;
    return post(path(row) + to, body).then(function (found) {
      if (found.ok) { note(row, ""); show(row, found.told); return found.told; }
      if (found.status === 409) {
        var now = found.told.detail, other = now.correction ? now.correction.by : "somebody";
        show(row, now);
        note(row, "Not saved: " + other + " changed this answer after you opened it. It is shown as it is now; look, and save again if yours still holds.");
      } else { note(row, why(found)); }
      return false;
    });
  }
  function setMark(row, mark) { change(row, "/correct", {mark: row.dataset.mark === mark ? null : mark}); }
  function edit(row, open) {
    var form = part(row, ".edit");
    if (!form) { return; }
    form.hidden = !open;
    if (open) { part(form, "textarea").focus(); } else { row.focus(); }
  }

  // -- asking ---------------------------------------------------------------------------------------------------------
  function ask(row, question) {
    var place = part(row, ".told");
    if (!place) { return Promise.resolve(); }
    var box = make("div");
    box.appendChild(make("p", "question", question));
    var answer = box.appendChild(make("p", "answer waiting", "listening …"));
    place.appendChild(box);
    return post(path(row) + "/ask", {question: question, task: "QA"}).then(function (found) {
      answer.classList.remove("waiting");
      answer.textContent = found.ok ? found.told.text || "(no words)" : why(found);
      if (!found.ok) { answer.className = "note"; return; }
      if (found.told.confidence !== null) { box.appendChild(make("span", "chip sure", found.told.confidence.toFixed(2) + " sure")); }
      if (found.told.neighbors.length) {
        var more = box.appendChild(make("details")), list = make("ol", "near");
        more.className = "details";
        more.appendChild(make("summary", "", "Neighbours that pulled the answer"));
        found.told.neighbors.slice(0, 12).forEach(function (near) {
          var item = list.appendChild(make("li"));
          item.appendChild(make("span", "", (100 * near.weight).toFixed(0) + " %"));
          item.appendChild(document.createTextNode(" " + near.caption));
        });
        more.appendChild(list);
      }
    });
  }
  function openAsk(row) {
    var form = part(row, ".ask");
    if (form && part(row, '[data-do="ask"]')) { form.hidden = false; part(form, "input").focus(); }
  }

  // -- selection ------------------------------------------------------------------------------------------------------
  var selection = document.getElementById("selection"), chosen = document.getElementById("chosen");
  function picked() { return Array.prototype.filter.call(rows.children, function (row) { return part(row, ".pick").checked; }); }
  function count() {
    var many = picked().length;
    selection.hidden = !many || !document.body.dataset.asks;
    chosen.textContent = many + " selected";
  }
  selection.addEventListener("submit", function (event) {
    event.preventDefault();
    var question = selection.elements.question.value.trim(), waiting = picked();
    if (!question) { selection.elements.question.focus(); return; }
    function next() { var row = waiting.shift(); return row ? ask(row, question).then(next) : Promise.resolve(); }
    for (var lane = 0; lane < 4; lane++) { next(); }
    waiting.length && tell("Asking; answers come as they are there.");
  });
  document.getElementById("none").addEventListener("click", function () {
    picked().forEach(function (row) { part(row, ".pick").checked = false; });
    count();
  });

  // -- one row is here ------------------------------------------------------------------------------------------------
  function go(row, quietly) {
    if (!row) { return; }
    if (here) { here.classList.remove("here"); }
    here = row;
    here.classList.add("here");
    if (!quietly) { row.focus({preventScroll: true}); row.scrollIntoView({block: "nearest"}); }
  }
  function step(by) {
    var list = rows.children, at = here ? Array.prototype.indexOf.call(list, here) + by : by > 0 ? 0 : list.length - 1;
    if (at >= list.length) { turn(); } else { go(list[Math.max(0, at)]); }
  }
  function turn() {
    var following = document.getElementById("next");
    if (following) { location.href = following.href; } else { tell("This is the last page."); }
  }
  function pick(row) { var box = part(row, ".pick"); box.checked = !box.checked; count(); }
  function act(row, what) {
    if (what === "right" || what === "wrong") { if (part(row, ".acts")) { setMark(row, what); } }
    else if (what === "edit") { edit(row, part(row, ".edit") && part(row, ".edit").hidden); }
    else if (what === "cancel") { edit(row, false); }
    else if (what === "undo") { if (part(row, ".acts")) { change(row, "/undo", {}).then(function (now) { if (now) { fill(row, now); tell("Undone."); } }); } }
    else if (what === "ask") { openAsk(row); }
  }
  rows.addEventListener("click", function (event) {
    var row = event.target.closest(".row");
    if (!row) { return; }
    go(row, true);
    var button = event.target.closest("button"), picture = event.target.closest(".picture");
    if (button && button.classList.contains("play")) { play(row); }
    else if (button && button.dataset.at) { play(row, +button.dataset.at); }
    else if (button && button.dataset.do) { act(row, button.dataset.do); }
    else if (picture) {
      var box = picture.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      var audio = part(row, "audio");
      if (audio.readyState > 0) { play(row, share * audio.duration); } else {
        audio.addEventListener("loadedmetadata", function () { play(row, share * audio.duration); }, {once: true});
        audio.preload = "metadata";
        audio.load();
      }
    }
  });
  rows.addEventListener("change", function (event) { if (event.target.classList.contains("pick")) { count(); } });
  rows.addEventListener("submit", function (event) {
    var form = event.target, row = form.closest(".row");
    event.preventDefault();
    if (form.classList.contains("edit")) {
      var labels = form.elements.labels.value.split(",").map(function (label) { return label.trim(); }).filter(Boolean);
      change(row, "/correct", {text: form.elements.text.value.trim() || null, labels: labels.length ? labels : null})
        .then(function (now) { if (now) { fill(row, now); edit(row, false); tell("Saved."); } });
    } else {
      var question = form.elements.question.value.trim();
      if (question) { form.elements.question.select(); ask(row, question); }
    }
  });
  rows.addEventListener("toggle", function (event) {
    var details = event.target, row = details.closest(".row");
    if (!details.open || details.dataset.loaded || !part(details, ".inside")) { return; }
    details.dataset.loaded = "1";
    fetch("/clip/" + row.dataset.run + "/" + row.dataset.row).then(function (answer) { return answer.ok ? answer.text() : "The server does not answer."; })
      .then(function (html) { part(details, ".inside").innerHTML = html; });
  }, true);

  // -- keys -----------------------------------------------------------------------------------------------------------
  var keys = document.getElementById("keys");
  document.getElementById("help").addEventListener("click", function () { keys.showModal(); });
  document.addEventListener("keydown", function (event) {
    var field = event.target.closest("input:not(.pick), select, textarea");
    if (event.key === "Escape" && field) { field.blur(); if (here) { here.focus(); } return; }
    if (field && event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.form) { field.form.requestSubmit(); return; }
    if (field || keys.open || event.ctrlKey || event.metaKey || event.altKey) { return; }
    var on = {j: function () { step(1); }, k: function () { step(-1); }, n: turn, "?": function () { keys.showModal(); },
              "/": function () { document.getElementById("q").focus(); }}[event.key];
    var row = here && {" ": function () { play(here); }, r: function () { act(here, "right"); }, w: function () { act(here, "wrong"); },
                       e: function () { act(here, "edit"); }, u: function () { act(here, "undo"); }, a: function () { act(here, "ask"); },
                       x: function () { pick(here); },
                       o: function () { var more = part(here, ".words > .details"); if (more) { more.open = !more.open; } }}[event.key];
    if (event.key === " " && event.target.closest("button, summary, a")) { return; }
    if (on || row) { event.preventDefault(); (on || row)(); }
  });

  // -- the form -------------------------------------------------------------------------------------------------------
  var form = document.getElementById("find");
  form.addEventListener("submit", function () {  // an address holds what is asked, and nothing that is empty
    each(form.elements, function (field) { if (field.name && (!field.value || (field.name === "by" && field.value === "words"))) { field.disabled = true; } });
  });
  window.addEventListener("pageshow", function () { each(form.elements, function (field) { field.disabled = false; }); });
  form.addEventListener("change", function (event) { if (event.target.tagName === "SELECT" && event.target.name !== "by") { form.requestSubmit(); } });
  count();
})();
