/* A page that nobody sees rests, unless somebody waits for its word. */

let awake = () => false;

export const asleep = () => document.hidden && !awake();
export const stayAwake = (when) => (awake = when);
