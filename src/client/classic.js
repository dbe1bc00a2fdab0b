/** The classic script: defines `window.doorward` and runs what stub.js queued until now. */

import { doorward } from './doorward.js';

const queued = globalThis.doorward?.q;
globalThis.doorward = doorward;
// An element with this id would stand in the same place, so: an array, and methods that we have.
for (const [method, args, resolve, reject] of Array.isArray(queued) ? queued : []) {
  try {
    resolve(doorward[method](...args));
  } catch (error) {
    reject(error);
  }
}
