"use strict";
// One video holds all panes of every moment, and a canvas shows one of them, so panes stay in step.
// The slider, the curves and the numbers follow the moment that the canvas shows.
const data = JSON.parse(document.getElementById("data").textContent);
const video = document.querySelector("video");
const canvas = document.querySelector("canvas");
const slider = document.getElementById("moment");
const readout = document.getElementById("readout");
const play = document.getElementById("play");
const layers = document.getElementById("layers");
const strength = document.getElementById("strength");
const last = data.seconds.length - 1;
let target = 0; // the requested moment; the canvas follows when the video gets there

function moment() {
  return Math.min(last, Math.floor(video.currentTime * data.fps + 0.01));
}

function draw() {
  if (video.readyState < 2) return;
  const layer = layers.elements.layer.value;
  const context = canvas.getContext("2d");
  const all = { x: 0, y: 0, w: data.width, h: data.height };
  const pane = data.panes[layer] || all;
  if (canvas.width !== pane.w || canvas.height !== pane.h) {
    canvas.width = pane.w;
    canvas.height = pane.h;
    canvas.classList.toggle("all", pane === all);
  }
  const paint = ({ x, y, w, h }) => context.drawImage(video, x, y, w, h, 0, 0, w, h);
  const isHeat = layer.startsWith("heat-");
  if (isHeat) {
    paint(data.panes.frames);
    context.globalAlpha = strength.value / 100;
  }
  paint(pane);
  context.globalAlpha = 1;
  strength.disabled = !isHeat;
}

function describe(at) {
  const parts = [`${data.seconds[at].toFixed(2)} s`];
  if (data.clips.length > 1) parts.push(`clip ${data.clips.filter((c) => c <= at).length}`);
  for (const curve of data.curves) {
    const value = curve.values[at];
    parts.push(`${curve.title.toLowerCase()} ${value === null ? "unknown" : value.toFixed(2)}`);
    if (value !== null && curve.stranger) {
      parts.push(`stranger than ${Math.floor(100 * curve.stranger[at] + 1e-6)}% of real moments`);
    }
  }
  return parts.join(", ");
}

function follow(at) {
  draw();
  canvas.dataset.moment = at;
  if (!video.paused) target = at;
  slider.value = target;
  slider.setAttribute("aria-valuetext", describe(target));
  readout.textContent = describe(at);
  for (const line of document.querySelectorAll(".cursor")) {
    line.style.left = `${(100 * (at + 0.5)) / (last + 1)}%`;
  }
}

function jump(to) {
  target = Math.max(0, Math.min(last, to));
  slider.value = target;
  slider.setAttribute("aria-valuetext", describe(target));
  video.currentTime = (target + 0.5) / data.fps;
}

function toggle() {
  if (!video.paused) return video.pause();
  if (target === last) jump(0);
  video.play();
}

function whilePlaying() {
  if (video.requestVideoFrameCallback) {
    video.requestVideoFrameCallback((_, frame) => {
      follow(Math.min(last, Math.round(frame.mediaTime * data.fps)));
      if (!video.paused) whilePlaying();
    });
  } else {
    requestAnimationFrame(() => {
      follow(moment());
      if (!video.paused) whilePlaying();
    });
  }
}

video.addEventListener("loadeddata", () => jump(target));
video.addEventListener("seeked", () => follow(moment()));
video.addEventListener("play", () => {
  play.textContent = "Pause";
  readout.ariaLive = "off";
  whilePlaying();
});
video.addEventListener("pause", () => {
  play.textContent = "Play";
  readout.ariaLive = "polite";
  jump(video.ended ? last : moment());
});
play.addEventListener("click", toggle);
slider.addEventListener("input", () => jump(Number(slider.value)));
layers.addEventListener("input", draw);
layers.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("speed").addEventListener("change", (event) => {
  video.playbackRate = Number(event.target.value);
});
for (const button of document.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => jump(target + Number(button.dataset.step)));
}
for (const button of document.querySelectorAll("button[data-jump]")) {
  button.addEventListener("click", () => {
    jump(Number(button.dataset.jump));
    document.getElementById("player").scrollIntoView({ block: "nearest" });
  });
}
for (const plot of document.querySelectorAll(".plot")) {
  const to = (event) => {
    const box = plot.getBoundingClientRect();
    jump(Math.floor(((event.clientX - box.left) / box.width) * (last + 1)));
  };
  plot.addEventListener("pointerdown", to);
  plot.addEventListener("pointermove", (event) => event.buttons && to(event));
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const on = event.target.closest("button, select, input, a, summary");
  if (event.key === " " && (!on || on.type === "range")) {
    event.preventDefault();
    toggle();
  }
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !on) {
    event.preventDefault();
    jump(target + step);
  }
});

for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
video.hidden = true;
if (video.readyState >= 2) jump(target);
