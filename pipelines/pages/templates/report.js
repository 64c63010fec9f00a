  // What is listed: the cards of this page, and (on the first) every other file, as a card without a picture when shown.
  var AT_ONCE = 300;
  var list = document.getElementById("files"), more = document.getElementById("more"), none = document.getElementById("none");
  var search = document.getElementById("search"), filter = document.getElementById("filter"), sort = document.getElementById("sort");
  var shown = document.getElementById("shown"), packed = document.getElementById("everything");
  var entries = Array.prototype.map.call(list.children, function (card) {
    var d = card.dataset;
    return {card: card, order: +d.order, name: d.name, length: +d.length, f1: +d.f1, slips: +d.slips, labelled: d.labelled === "1",
            sure: d.sure === "" ? 2 : +d.sure, broken: d.broken === "1", gone: d.gone === "1", heard: d.heard === "1", search: d.search};
  });
  var limit = AT_ONCE;
  var kinds = {
    all: function () { return true; },
    slips: function (e) { return e.slips > 0; },
    perfect: function (e) { return e.labelled && e.slips === 0; },
    long: function (e) { return e.length > 60; },
    broken: function (e) { return e.broken; },
    gone: function (e) { return e.gone; }
  };
  var orders = {
    heard: function (a, b) { return b.heard - a.heard || a.order - b.order; },
    order: function (a, b) { return a.order - b.order; },
    name: function (a, b) { return a.name.localeCompare(b.name); },
    longest: function (a, b) { return b.length - a.length || a.order - b.order; },
    shortest: function (a, b) { return (a.length || Infinity) - (b.length || Infinity) || a.order - b.order; },
    unsure: function (a, b) { return a.sure - b.sure || a.order - b.order; },
    worst: function (a, b) { return a.f1 - b.f1 || a.order - b.order; }
  };
  function make(tag, kind, text) {
    var node = document.createElement(tag);
    if (kind) { node.className = kind; }
    if (text) { node.textContent = text; }
    return node;
  }
  function at(seconds) {
    var whole = Math.floor(seconds), rest = ("0" + whole % 60).slice(-2), minutes = Math.floor(whole / 60);
    return minutes < 60 ? minutes + ":" + rest : Math.floor(minutes / 60) + ":" + ("0" + minutes % 60).slice(-2) + ":" + rest;
  }
  function link(text, to) {
    var node = make(to ? "a" : "span", "", text);
    if (to) { node.href = to; }
    return node;
  }
  function build(e) {
    var it = e.packed, parts = it.p || [], card = make("article", "file" + (parts.every(function (p) { return p[5]; }) ? " failed" : ""));
    var head = make("div", "head"), name = make("h2");
    var cut = it.n.lastIndexOf("/") + 1, whole = link("", it.h);
    if (cut) { whole.appendChild(make("span", "folder", it.n.slice(0, cut))); }
    whole.appendChild(document.createTextNode(it.n.slice(cut)));
    name.appendChild(whole);
    head.appendChild(name);
    var facts = make("span", "facts", it.l ? at(it.l) : "");
    if (it.g) { facts.appendChild(make("b", "gone", " gone")); }
    if (it.c) { facts.appendChild(document.createTextNode(" ")); facts.appendChild(link("see and hear", it.c)); }
    head.appendChild(facts);
    card.appendChild(head);
    parts.forEach(function (p) {
      if (p[5]) {
        var error = make("p", "error");
        error.appendChild(make("code", "", p[5]));
        error.appendChild(document.createTextNode(p[6]));
        card.appendChild(error);
        return;
      }
      var part = make("section", "part bare"), box = make("div");
      if (parts.length > 1) { box.appendChild(make("p", "when", at(p[0]) + " – " + at(p[1]))); }
      if (p[2]) { box.appendChild(make("p", "question", p[2])); }
      var answer = make("p", "answer"), words = p[3] || "(no words)";
      answer.appendChild(p[8] ? make("span", "held", words) : document.createTextNode(words));
      if (p[7] !== undefined) {
        answer.appendChild(document.createTextNode(" "));
        answer.appendChild(make("span", "sure-of " + (p[7] < 0.5 ? "low" : p[7] >= 0.9 ? "high" : "mid"), Math.round(100 * p[7]) + " %"));
      }
      box.appendChild(answer);
      if (p[4]) { box.appendChild(make("p", "truth", "Recipe: " + p[4])); }
      part.appendChild(box);
      card.appendChild(part);
    });
    return card;
  }
  function words(e) {
    if (e.search === undefined) {
      e.search = [e.packed.n].concat((e.packed.p || []).map(function (p) { return p.slice(2, 6).join(" "); })).join(" ").toLowerCase();
    }
    return e.search;
  }
  function show() {
    var asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var found = entries.filter(function (e) {
      return kinds[filter.value](e) && (!asked.length || asked.every(function (w) { return words(e).indexOf(w) >= 0; }));
    });
    var nodes = document.createDocumentFragment();
    found.slice(0, limit).forEach(function (e) { nodes.appendChild(e.card || (e.card = build(e))); });
    list.textContent = "";
    list.appendChild(nodes);
    var files = entries.length.toLocaleString("en") + (entries.length === 1 ? " file" : " files");
    shown.textContent = found.length === entries.length ? files : found.length.toLocaleString("en") + " of " + files;
    none.hidden = found.length > 0;
    more.hidden = found.length <= limit;
    more.textContent = "Show more of the " + (found.length - limit).toLocaleString("en") + " others";
  }
  function again() { limit = AT_ONCE; show(); }
  function arrange() { entries.sort(orders[sort.value]); again(); }
  search.addEventListener("input", again);
  filter.addEventListener("change", again);
  sort.addEventListener("change", arrange);
  more.addEventListener("click", function () { limit += AT_ONCE; show(); });
  Array.prototype.forEach.call(document.querySelectorAll("[data-code]"), function (button) {
    button.addEventListener("click", function () { search.value = button.dataset.code; filter.value = "all"; again(); search.focus(); });
  });
  function unpack(text) {
    text.split("\n").forEach(function (line) {
      if (!line) { return; }
      var it = JSON.parse(line);
      entries.push({packed: it, order: it.o || 0, name: it.n, length: it.l || 0, f1: it.f === undefined ? 2 : it.f, slips: it.s || 0,
                    labelled: it.f !== undefined, sure: it.u === undefined ? 2 : it.u, broken: !!it.b, gone: !!it.g, heard: false});
    });
    arrange();
  }
  if (!packed && sort.value === "unsure") { arrange(); }
  if (packed && window.DecompressionStream) {
    shown.textContent = "reading …";
    var raw = atob(packed.textContent), bytes = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i++) { bytes[i] = raw.charCodeAt(i); }
    new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text().then(unpack);
  } else if (packed) {
    none.hidden = false;
    none.textContent = "This browser is too old to search the files without pictures: their list is packed.";
  }
