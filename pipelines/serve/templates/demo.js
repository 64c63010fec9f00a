// A sound that is dropped, chosen or recorded is sent, and what the model says of it is shown.
(function () {
  "use strict";
  var form = document.getElementById("demo"), drop = document.getElementById("drop"), file = document.getElementById("file");
  var shown = document.getElementById("name"), record = document.getElementById("record"), go = document.getElementById("go");
  var wrong = document.getElementById("wrong"), result = document.getElementById("result"), said = document.getElementById("said");
  var player = document.getElementById("player"), picture = document.getElementById("picture");
  var task = form.elements.task, question = form.elements.question, sound = null, ending = "", recorder = null, urls = [];

  function make(tag, kind, text) {
    var node = document.createElement(tag);
    if (kind) { node.className = kind; }
    if (text) { node.textContent = text; }
    return node;
  }
  function fail(text) { wrong.textContent = text || ""; wrong.hidden = !text; }
  function url(blob) { var made = URL.createObjectURL(blob); urls.push(made); return made; }
  function take(blob, called) {
    fail("");
    if (blob.size > +form.dataset.most) { fail("That is " + (blob.size / 1e6).toFixed(1) + " MB; at most " + (+form.dataset.most / 1e6).toFixed(0) + " are taken."); return; }
    sound = blob;
    ending = /\.([A-Za-z0-9]{1,5})$/.test(called) ? RegExp.$1.toLowerCase() : "";
    shown.textContent = called + ", " + (blob.size / 1e6).toFixed(2) + " MB";
    go.disabled = false;
    go.textContent = "Listen";
    form.requestSubmit();
  }
  file.addEventListener("change", function () { if (file.files[0]) { take(file.files[0], file.files[0].name); } });
  ["dragover", "dragleave", "drop"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      var given = kind === "drop" && event.dataTransfer.files[0];
      if (given) { take(given, given.name); }
    });
  });
  drop.addEventListener("keydown", function (event) { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); file.click(); } });
  if (!navigator.mediaDevices || !window.MediaRecorder) { record.hidden = true; }  // as where the page is neither https nor this machine's
  record.addEventListener("click", function () {
    if (recorder) { recorder.stop(); return; }
    navigator.mediaDevices.getUserMedia({audio: true}).then(function (stream) {
      var pieces = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", function (event) { pieces.push(event.data); });
      recorder.addEventListener("stop", function () {
        stream.getTracks().forEach(function (track) { track.stop(); });
        var kind = recorder.mimeType || "audio/webm";
        recorder = null;
        record.classList.remove("on");
        record.textContent = "● Record";
        take(new Blob(pieces, {type: kind}), "recording." + (/mp4/.test(kind) ? "m4a" : /ogg/.test(kind) ? "ogg" : "webm"));
      });
      recorder.start();
      record.classList.add("on");
      record.textContent = "■ Stop";
    }, function () { fail("The microphone cannot be used; the browser was not allowed to."); });
  });
  task.addEventListener("change", function () { question.hidden = task.value !== "QA"; if (!question.hidden) { question.focus(); } });
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    if (!sound) { return; }
    if (task.value === "QA" && !question.value.trim()) { question.focus(); return; }
    fail("");
    go.disabled = true;
    go.textContent = "Listening …";
    var mine = sound;  // an answer is shown, and the button given back, where no other sound was taken since
    function still(what) { return function (told) { if (sound === mine) { what(told); } }; }
    var asked = new URLSearchParams({task: task.value, ending: ending});
    if (task.value === "QA") { asked.set("question", question.value.trim()); }
    fetch("/api/demo?" + asked, {method: "POST", headers: {"Content-Type": "application/octet-stream"}, body: sound})
      .then(function (answer) { return answer.json().then(function (told) { if (!answer.ok) { throw new Error(typeof told.detail === "string" ? told.detail : "That was not taken."); } return told; }); })
      .then(still(show), still(function (error) { fail(error.message); }))
      .then(still(function () { go.disabled = false; go.textContent = "Listen"; }));
  });
  function show(told) {
    urls.splice(0).forEach(URL.revokeObjectURL);
    var raw = atob(told.picture), bytes = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i++) { bytes[i] = raw.charCodeAt(i); }
    picture.src = url(new Blob([bytes], {type: "image/webp"}));
    picture.hidden = false;
    player.hidden = false;
    player.src = url(sound);
    player.onerror = function () { player.hidden = true; };  // a format that this browser does not play
    said.textContent = "";
    if (told.question) { said.appendChild(make("p", "question", told.question)); }
    told.answers.forEach(function (answer) {
      if (told.answers.length > 1) { said.appendChild(make("p", "when", "from " + answer.start_s.toFixed(0) + " s")); }
      said.appendChild(make("p", "answer", answer.text || "(no words)"));
      var chips = make("ul", "chips");
      if (answer.confidence !== null) { chips.appendChild(make("li", "chip sure", answer.confidence.toFixed(2) + " sure")); }
      if (answer.silent) { chips.appendChild(make("li", "chip", "silent")); }
      if (chips.firstChild) { said.appendChild(chips); }
      if (answer.neighbors.length) {
        said.appendChild(make("h3", "", "Neighbours that pulled the answer"));
        var list = said.appendChild(make("ol", "near"));
        answer.neighbors.slice(0, 8).forEach(function (near) {
          var item = list.appendChild(make("li"));
          item.appendChild(make("span", "", (100 * near.weight).toFixed(0) + " %"));
          item.appendChild(document.createTextNode(" " + near.caption));
        });
      }
    });
    if (!told.complete) { said.appendChild(make("p", "note", "The first " + told.heard_s.toFixed(0) + " s were heard.")); }
    result.hidden = false;
  }
})();
