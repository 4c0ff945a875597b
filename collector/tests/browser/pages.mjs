// Opens the pages of a collector in Chromium: journeys, accessibility, width. Exits with 1 at the first failure.
// usage: node pages.mjs URL BROWSER KEY, with TAILOR_BROWSER_MODULES and perhaps TAILOR_SCREENSHOTS.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [server, executablePath, adminKey] = process.argv.slice(2);
const require = createRequire(join(process.env.TAILOR_BROWSER_MODULES, "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const pictures = process.env.TAILOR_SCREENSHOTS;

// A name that is not that of a browser's own machine, for an address without TLS.
const args = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP tailor.test 127.0.0.1"];
const browser = await puppeteer.launch({ executablePath, args });

// A page that fails the test when it loads something from elsewhere or the content policy blocks something.
const problems = [];
async function open(path, { scheme = "light", width = 1280, javaScript = true } = {}) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: width < 600 ? 844 : 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setJavaScriptEnabled(javaScript);
  page.on("request", (request) => {
    if (!request.url().startsWith(server) && !request.url().startsWith("data:")) problems.push(`loads ${request.url()}`);
  });
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("404")) problems.push(`${path}: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`${path}: ${error}`));
  await page.goto(server + path, { waitUntil: "load" });
  return page;
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent);

// The first screen answers what the fleet costs, what changed and what to do first, and leads to the patch in one step.
async function fromCostToPatch() {
  const page = await open("/");
  assert.match(await text(page, ".tiles"), /Cost\$/);
  assert.match(await text(page, "#overview"), /What to do first/);
  assert.match(await text(page, "#overview"), /Recent changes/);
  for (const id of ["fleet-cost-title", "duration-over-time-title", "cold-starts-over-time-title", "cost-split"]) {
    assert.equal((await page.$$(`#${id}`)).length, 1, id);
  }
  assert.ok((await page.$$("svg.time g.change")).length > 0, "changes are marked");
  await Promise.all([page.waitForNavigation(), page.click(".steps li a")]);
  assert.match(await text(page, ".verdict"), /→/);
  assert.match(await text(page, "main"), /MemorySize: \d+/);
  for (const id of ["cost", "duration", "cold-starts"]) assert.ok(await page.$(`#${id}-over-time-title`), id);
  assert.ok(await page.$("#distribution-title"));
  await page.close();
}

async function searchAsYouType() {
  const page = await open("/");
  const rows = () => page.$$eval("#list tbody th", (cells) => cells.length);
  const all = await rows();
  await page.evaluate(() => (window.isSamePage = true));
  await page.type("input[name=name]", "orders");
  await page.waitForFunction(() => location.search.includes("name=orders"));
  const found = await rows();
  assert.ok(found > 0 && found < all, `${found} of ${all}`);
  assert.match(await text(page, "#found"), new RegExp(`^${found} functions?`));
  assert.ok(await page.evaluate(() => window.isSamePage && document.activeElement.name === "name"));
  await page.close();

  // The same without JavaScript, by the form.
  const plain = await open("/", { javaScript: false });
  await plain.type("input[name=name]", "orders");
  await Promise.all([plain.waitForNavigation(), plain.keyboard.press("Enter")]);
  assert.match(await text(plain, "#found"), new RegExp(`^${found} functions?`));
  await plain.close();
}

async function tagsFilterAndGroup() {
  const page = await open("/?by=tag:team");
  assert.match(await text(page, "#list"), /By tag:team/);
  assert.match(await text(page, "#overview"), /payments/);
  const [link] = await page.$$("#list section th a");
  await Promise.all([page.waitForNavigation(), link.click()]);
  assert.match(page.url(), /tag=team%3D/);
  const tags = await page.$$eval("#list .fleet tbody .tag", (tags) => {
    return tags.map((tag) => tag.textContent).filter((tag) => tag.startsWith("team="));
  });
  assert.ok(tags.length > 0 && new Set(tags).size === 1, `${tags}`);
  await page.close();
}

// The table of the fleet leads to the places of a function.
async function whereToRun() {
  const page = await open("/");
  await Promise.all([page.waitForNavigation(), page.click("header a[href='/where']")]);
  assert.match(await text(page, "main"), /may be cheaper in another place/);
  const savings = await page.$$eval("td[data-label='Saves']", (cells) => cells.map((cell) => Number(cell.textContent.slice(1))));
  assert.ok(savings.length > 0 && savings.every((saving, index) => index === 0 || saving <= savings[index - 1]), `${savings}`);
  await Promise.all([page.waitForNavigation(), page.click("tbody th a")]);
  assert.match(await text(page, "#places"), /managed-instances/);
  await page.click("#places details summary");
  assert.ok(await page.$eval("#places details", (details) => details.open));
  await page.close();
}

async function keyboard() {
  const page = await open("/");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => location.hash), "#main");
  // Every element that takes the focus shows it.
  for (let index = 0; index < 30; index += 1) {
    await page.keyboard.press("Tab");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", await page.evaluate(() => document.activeElement.outerHTML));
  }
  await page.close();
}

// An administrator signs in, creates a key, revokes it, and ends the session of another browser, without JavaScript.
async function keysAndSessions() {
  const submit = (page, selector) => Promise.all([page.waitForNavigation(), page.click(selector)]);
  const signIn = async (page) => {
    assert.match(page.url(), /\/login$/);
    await page.type("#key", adminKey);
    await submit(page, "main button");
    assert.equal(new URL(page.url()).pathname, "/");
  };
  const page = await open("/keys", { javaScript: false });
  await signIn(page);
  await submit(page, "header a[href='/keys']");
  await page.type("input[name=name]", "deployment");
  await page.type("input[name=functions]", "orders-*");
  await submit(page, "form.create button");
  const secret = await text(page, "section[role=status] pre");
  assert.match(secret, /^tlr_[0-9a-f]{64}$/);
  const status = async () => {
    const response = await fetch(`${server}/v1/batches`, { method: "POST", headers: { authorization: `Bearer ${secret}` } });
    return response.status;
  };
  assert.equal(await status(), 415);
  if (pictures) await page.screenshot({ path: join(pictures, "key-created.png"), fullPage: true });
  await page.goto(`${server}/keys`);
  assert.ok(!(await page.content()).includes(secret), "the key is shown once");
  await submit(page, "a[aria-label^='Revoke deployment']");
  assert.match(await text(page, "main"), /is refused from now on/);
  await submit(page, "main button");
  assert.ok(!(await text(page, "main")).includes("deployment"));
  assert.equal(await status(), 401);

  const context = await browser.createBrowserContext();
  const other = await context.newPage();
  await other.goto(`${server}/login`);
  await signIn(other);
  await page.goto(`${server}/keys`);
  const sessions = await page.$$("form[action^='/sessions/']");
  assert.equal(sessions.length, 2);
  // The other browser used its session before this one did.
  await Promise.all([page.waitForNavigation(), sessions[1].$("button").then((button) => button.click())]);
  assert.equal((await page.$$("form[action^='/sessions/']")).length, 1);
  await other.goto(`${server}/keys`);
  assert.match(other.url(), /\/login$/);
  await context.close();
  await page.close();
}

// Without TLS, and not at a loopback address, a browser sends no Sec-Fetch-Site: the Origin of a form must be that of its page.
async function signInWithoutTls() {
  const url = new URL("/login", server);
  url.hostname = "tailor.test";
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.goto(url.href);
  assert.ok(!(await page.evaluate(() => isSecureContext)));
  await page.type("#key", adminKey);
  const [response] = await Promise.all([page.waitForNavigation(), page.click("main button")]);
  assert.equal(response.status(), 200);
  assert.equal(page.url(), new URL("/", url).href);
  await context.close();
}

async function accessible(name, path) {
  for (const [scheme, width] of [["light", 1280], ["dark", 1280], ["dark", 390]]) {
    const page = await open(path, { scheme, width });
    // Through the debugger, which the content policy does not concern.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
    assert.deepEqual(found, [], `${path} (${scheme}, ${width} px)`);
    const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth);
    const wide = await page.$$eval("main *", (elements, width) => {
      const isWide = (element) => element.getBoundingClientRect().right > width && element.children.length === 0;
      return elements.filter(isWide).slice(0, 3).map((element) => element.outerHTML);
    }, width);
    assert.ok(overflow <= width, `${path} is ${overflow} px wide at ${width} px: ${wide.join(" | ")}`);
    if (pictures) {
      await page.setViewport({ width, height: width < 600 ? 2_400 : 1_600 });
      await page.screenshot({ path: join(pictures, `${name}-${scheme}-${width}.png`) });
    }
    await page.close();
  }
}

try {
  await fromCostToPatch();
  await searchAsYouType();
  await tagsFilterAndGroup();
  await whereToRun();
  await keyboard();
  await keysAndSessions();
  await signInWithoutTls();
  const first = await open("/");
  const functionPath = await first.$eval(".steps li a", (link) => link.getAttribute("href"));
  const changed = await first.$$eval("#overview table th a", (links) => links.map((link) => link.getAttribute("href"))[0]);
  await first.close();
  for (const [name, path] of [
    ["fleet", "/"],
    ["week", "/?hours=168&by=tag:team"],
    ["function", functionPath],
    ["changed", changed.replace(/hours=\d+/, "hours=168")],
    ["none", "/?name=nothing-has-this-name"],
    ["where", "/where"],
    ["keys", "/keys"],
    ["login", "/login"],
    ["logout", "/logout"],
    ["missing", "/functions/missing"],
  ]) {
    await accessible(name, path);
  }
  if (pictures) {
    const page = await open("/");
    await page.pdf({ path: join(pictures, "fleet.pdf") });
    await page.close();
  }
  assert.deepEqual(problems, []);
  console.log("all pages passed");
} finally {
  await browser.close();
}
