// Writes a CPU profile of a function call, for the upload by the extension (docs/profiles.md).
'use strict';
const fs = require('node:fs');
const { Session } = require('node:inspector/promises');

const FOLDER = '/tmp/tailor';

// Profiles `work`. The name of the file is unique, so that a later profile does not replace it.
async function profiled(name, work) {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  try {
    return await work();
  } finally {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    fs.mkdirSync(FOLDER, { recursive: true });
    const file = `${name}-${process.hrtime.bigint()}.cpuprofile`;
    // A name that begins with a dot is not complete. The rename makes it complete at once.
    fs.writeFileSync(`${FOLDER}/.${file}`, JSON.stringify(profile));
    fs.renameSync(`${FOLDER}/.${file}`, `${FOLDER}/${file}`);
  }
}

module.exports = { profiled };
