"use strict";
// Who asks for little motion gets at most two frames a second, and no second round.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
// One scrubber moves everything of its clip: frames, feature pictures, and the marks on curves and matrices.
for (const clip of document.querySelectorAll(".clip")) {
  const controls = clip.querySelector(".controls");
  if (!controls) continue;
  const [button, range, output] = ["button", "input", "output"].map((name) => controls.querySelector(name));
  const steps = JSON.parse(range.dataset.steps);
  const stacks = [...clip.querySelectorAll(".stack")].map((stack) => [...stack.children]);
  let shown = 0;
  let timer = 0;

  function show(step) {
    for (const pictures of stacks) {
      pictures[shown].hidden = true;
      pictures[step].hidden = false;
    }
    shown = step;
    range.value = step;
    range.setAttribute("aria-valuetext", steps[step]);
    output.textContent = steps[step];
    clip.style.setProperty("--at", step / (steps.length - 1));
    clip.style.setProperty("--middle", (step + 0.5) / steps.length);
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
    button.setAttribute("aria-label", button.getAttribute("aria-label").replace(/^Pause/, "Play"));
  }

  function advance() {
    const next = (shown + 1) % steps.length;
    if (calm.matches && !next) pause();
    else show(next);
  }

  function play() {
    if (calm.matches && shown === steps.length - 1) show(0);
    const pace = Number(clip.dataset.interval);
    timer = setInterval(advance, calm.matches ? Math.max(pace, 500) : pace);
    button.textContent = "Pause";
    button.setAttribute("aria-label", button.getAttribute("aria-label").replace(/^Play/, "Pause"));
  }

  button.addEventListener("click", () => (timer ? pause() : play()));
  range.addEventListener("input", () => {
    pause();
    show(Number(range.value));
  });
  controls.hidden = false;
  show(0); // a reload may have kept the scrubber's old place
}
