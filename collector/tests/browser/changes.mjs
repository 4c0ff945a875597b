// Signs in and asks the tuner for actions on its page, each with two steps. Exits with 1 at the first failure.
// usage: node changes.mjs URL BROWSER KEY ACTION,..., with TAILOR_BROWSER_MODULES.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [server, executablePath, key, actions] = process.argv.slice(2);
const require = createRequire(join(process.env.TAILOR_BROWSER_MODULES, "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });

async function accessible(page) {
  for (const [scheme, width] of [["light", 1280], ["dark", 390]]) {
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
    assert.deepEqual(found, [], `${page.url()} (${scheme}, ${width} px)`);
    const wide = await page.evaluate(() => document.scrollingElement.scrollWidth);
    assert.ok(wide <= width, `${page.url()} is ${wide} px wide at ${width} px`);
  }
  await page.setViewport({ width: 1280, height: 900 });
}

try {
  const page = await browser.newPage();
  await page.goto(`${server}/login`);
  await page.type("input[name=key]", key);
  await Promise.all([page.waitForNavigation(), page.click("main button")]);
  for (const action of actions.split(",")) {
    await page.goto(`${server}/changes`);
    await accessible(page);
    const [link] = await page.$$(`xpath/.//main//a[starts-with(normalize-space(.), "${action}")]`);
    assert.ok(link, `${action}: ${await page.$eval("main", (main) => main.innerText)}`);
    await Promise.all([page.waitForNavigation(), link.click()]);
    assert.match(page.url(), /\/changes\/confirm/);
    await accessible(page);
    // Nothing happens before the second step.
    await page.goto(`${server}/changes`);
    const before = await page.$eval("#tuner", (element) => element.innerText);
    await page.goBack();
    await Promise.all([page.waitForNavigation(), page.click("main form button")]);
    assert.equal(page.url(), `${server}/changes`);
    const after = await page.$eval("#tuner", (element) => element.innerText);
    const waiting = (text) => Number(/(\d+) requests? wait/.exec(text)?.[1] ?? 0);
    assert.equal(waiting(after), waiting(before) + 1, `${action}: ${after}`);
  }
  console.log("all steps passed");
} finally {
  await browser.close();
}
