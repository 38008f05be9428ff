// Selects the measured positions of a triangle by a click or by the arrow keys.
const points = () => Array.from(element.querySelectorAll("circle.place"));
const select = (point) => {
  if (!point || point.dataset.number === String(props.value)) return;
  props.value = point.dataset.number;
  trigger("input");
  requestAnimationFrame(() => element.querySelector('circle.place[tabindex="0"]')?.focus());
};
element.addEventListener("click", (event) => select(event.target.closest("circle.place")));
element.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = steps[event.key], here = event.target.closest("circle.place");
  if (!step || !here) return;
  event.preventDefault();
  const x = Number(here.getAttribute("cx")), y = Number(here.getAttribute("cy"));
  let best = null, least = Infinity;
  for (const point of points()) {
    const dx = Number(point.getAttribute("cx")) - x, dy = Number(point.getAttribute("cy")) - y;
    const along = dx * step[0] + dy * step[1], across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
    if (along > 1 && along + 2 * across < least) [best, least] = [point, along + 2 * across];
  }
  select(best);
});
