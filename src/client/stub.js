/**
 * Takes calls before /doorward.js has loaded; they run, in order, when it has. Put it above your own scripts, in a file of
 * your own origin or inline under a CSP hash, and load /doorward.js with `async`.
 */
(() => {
  if (window.doorward?.init) return; // an element of this id would stand there too, so: the method
  const q = [];
  const later =
    (method) =>
    (...args) =>
      new Promise((resolve, reject) => q.push([method, args, resolve, reject]));
  const methods = 'init identify setIdentityTokenFetcher onIdentityExpired user fetch socket logout'.split(' ');
  window.doorward = { q, ...Object.fromEntries(methods.map((method) => [method, later(method)])) };
  const stream = later('stream');
  window.doorward.stream = (...args) => {
    const queued = stream(...args);
    return (async function* () {
      yield* await queued;
    })();
  };
})();
