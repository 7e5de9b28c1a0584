// Logistic regression by gradient descent, on points that a line separates: params lr and l2.
import { Trial } from "./trialbus.mjs";

const EPOCHS = 20;
const STEPS = 20;

// A small generator with a seed, so that every trial sees the same points.
function makeGenerator(seed) {
  return () => ((seed = (seed * 1664525 + 1013904223) % 2 ** 32), seed / 2 ** 32);
}

const random = makeGenerator(7);
const points = Array.from({ length: 400 }, () => {
  const [x, y] = [random() * 2 - 1, random() * 2 - 1];
  return { x, y, label: x + 0.5 * y + 0.2 * (random() - 0.5) > 0.1 ? 1 : 0 };
});
const [training, validation] = [points.slice(0, 300), points.slice(300)];
const predict = ([a, b, c], { x, y }) => 1 / (1 + Math.exp(-(a * x + b * y + c)));

function loss(weights, data) {
  const clipped = p => Math.min(Math.max(p, 1e-9), 1 - 1e-9);
  const terms = data.map(d => -Math.log(clipped(d.label ? predict(weights, d) : 1 - predict(weights, d))));
  return terms.reduce((a, b) => a + b) / data.length;
}

await new Trial().run(async trial => {
  const { lr, l2 } = trial.params;
  let weights = [0, 0, 0];
  for (let epoch = 0; epoch < (trial.budget ?? EPOCHS); epoch++) {
    for (let step = 0; step < STEPS; step++) {
      const gradient = [0, 0, 0];
      for (const point of training) {
        const error = (predict(weights, point) - point.label) / training.length;
        [point.x, point.y, 1].forEach((value, i) => (gradient[i] += error * value));
      }
      weights = weights.map((weight, i) => weight - lr * (gradient[i] + l2 * weight));
    }
    trial.report(epoch, { "val/loss": loss(weights, validation), "train/loss": loss(weights, training) });
    await new Promise(resolve => setTimeout(resolve, 20)); // gives the socket time, as a real training does
  }
});
