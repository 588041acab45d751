/** What a guest writes for a terminal, and what it says of its keys, as text to read. Pure. */

/** The most characters of a log that are kept. */
export const MOST = 200_000;

/** Escape sequences: of colours and the cursor, of titles and links, and others of two characters; also an unfinished one. */
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * The text without what only a terminal understands.
 * @param {string} text
 */
export const plain = text => text.replace(ESCAPES, "").replaceAll("\r\n", "\n").replace(CONTROLS, "");

/**
 * The host keys of a VM as lines of `known_hosts`; empty without an address. A guest may report anything: what cannot be
 * a part of such a line is left out.
 * @param {{addresses: string[], host_keys: {type: string, key: string}[]}} vm
 */
export function knownHosts({addresses, host_keys: keys}) {
  const hosts = addresses.filter(address => /^[0-9a-fA-F:.]+$/.test(address)).join(",");
  if (hosts === "") return "";
  const sound = keys.filter(({type, key}) => /^[\w@.-]+$/.test(type) && /^[A-Za-z0-9+/]+=*$/.test(key));
  return sound.map(({type, key}) => `${hosts} ${type} ${key}\n`).join("");
}
