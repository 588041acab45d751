/** What is added to the tags and labels of VMs, and what is removed. Pure. */

/**
 * @typedef {object} Changes
 * @property {string[]} add tags
 * @property {string[]} remove tags
 * @property {Record<string, string>} set labels
 * @property {string[]} drop the keys of labels
 */

/**
 * The fields of a VM that changes change; null if they change nothing. Pure.
 * @param {{tags: readonly string[], labels: Readonly<Record<string, string>>}} vm
 * @param {Changes} changes
 * @returns {{tags?: string[], labels?: Record<string, string>} | null}
 */
export function changed(vm, {add, remove, set, drop}) {
  const tags = [...new Set([...vm.tags, ...add])].filter(tag => !remove.includes(tag));
  const now = Object.fromEntries(Object.entries({...vm.labels, ...set}).filter(([key]) => !drop.includes(key)));
  const found = {
    ...(tags.join(" ") === vm.tags.join(" ") ? {} : {tags}),
    ...(JSON.stringify(Object.entries(now).sort()) === JSON.stringify(Object.entries(vm.labels).sort()) ? {} : {labels: now}),
  };
  return Object.keys(found).length > 0 ? found : null;
}
