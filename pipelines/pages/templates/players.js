  var playing = null;
  Array.prototype.forEach.call(document.querySelectorAll("figure"), function (figure) {
    var audio = figure.querySelector("audio");
    if (!audio) { return; }
    var button = figure.querySelector(".play");
    var picture = figure.querySelector(".picture"), head = picture.querySelector("i"), share = +picture.dataset.share;
    function mark() {
      head.style.opacity = 1;
      head.style.left = 100 * share * (audio.duration ? Math.min(1, audio.currentTime / audio.duration) : 0) + "%";
      if (!audio.paused) { requestAnimationFrame(mark); }
    }
    function play() {
      if (playing && playing !== audio) { playing.pause(); }
      playing = audio;
      audio.play();
    }
    button.addEventListener("click", function () { if (audio.paused) { play(); } else { audio.pause(); } });
    function playFrom(where) {
      function seek() { audio.currentTime = Math.min(where(), 0.999 * audio.duration); play(); }
      if (audio.readyState > 0) { seek(); } else { audio.addEventListener("loadedmetadata", seek, {once: true}); audio.preload = "metadata"; audio.load(); }
    }
    picture.addEventListener("click", function (event) {
      var box = picture.getBoundingClientRect(), at = (event.clientX - box.left) / box.width / share;
      playFrom(function () { return at * audio.duration; });
    });
    Array.prototype.forEach.call(figure.parentNode.querySelectorAll("[data-at]"), function (segment) {
      segment.addEventListener("click", function () { playFrom(function () { return +segment.dataset.at; }); });
    });
    audio.addEventListener("play", function () { button.classList.add("on"); mark(); });
    audio.addEventListener("pause", function () { button.classList.remove("on"); });
    audio.addEventListener("ended", function () { head.style.opacity = 0; });
  });
