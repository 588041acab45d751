/** What the list of VMs keeps of each, and which of them it shows. Pure. */

import {gib, mib} from "../../core/format.js";
import {matches, values} from "../../parts/match.js";

/**
 * @typedef {object} Row
 * @property {string} id
 * @property {string} project
 * @property {string} name
 * @property {string} phase
 * @property {boolean} ready
 * @property {string | null} pending
 * @property {string | null} node
 * @property {string} address
 * @property {string} image
 * @property {string | null} flavor
 * @property {number} vcpus
 * @property {number} memory
 * @property {number} disk
 * @property {string[]} tags
 * @property {string[]} labels such as `team=blue`
 * @property {string} created
 * @property {string} text all that is searched in
 */

/** @param {VmView} vm @returns {Row | null} null: it is deleted */
export function keep(vm) {
  if (vm.phase === "deleted") return null;
  const labels = Object.entries(vm.labels).map(([key, value]) => (value === "" ? key : `${key}=${value}`));
  return {
    id: vm.id,
    project: vm.project,
    name: vm.name,
    phase: vm.phase,
    ready: vm.ready,
    pending: vm.pending?.verb ?? null,
    node: vm.node,
    address: vm.addresses[0] ?? "",
    image: vm.image,
    flavor: vm.flavor,
    vcpus: vm.vcpus,
    memory: vm.memory_mib,
    disk: vm.disk_gib,
    tags: vm.tags,
    labels,
    created: vm.created_at,
    text: [vm.name, vm.id, vm.project, vm.phase, vm.node, vm.image, vm.flavor, vm.description, ...vm.addresses, ...vm.tags, ...labels].join(" ").toLowerCase(),
  };
}

/** @param {Row} row @returns {string} such as `2x2048x20`: CPUs, MiB and GiB */
const sizeOf = ({vcpus, memory, disk}) => `${vcpus}x${memory}x${disk}`;

/** @param {{vcpus: number, memory: number, disk: number}} size */
export const sized = ({vcpus, memory, disk}) => `${vcpus} CPU, ${mib(memory)}, ${gib(disk)}`;

/** A number by which sizes are sorted: CPUs first, then memory, then disk. @param {Row} row */
export const bigness = ({vcpus, memory, disk}) => vcpus * 1e12 + memory * 1e5 + disk;

const AGES = [
  {value: "<1h", text: "under an hour"},
  {value: "<1d", text: "under a day"},
  {value: "<7d", text: "under a week"},
  {value: ">7d", text: "over a week"},
  {value: ">30d", text: "over 30 days"},
];
const UNITS = /** @type {Record<string, number>} */ ({m: 60_000, h: 3_600_000, d: 86_400_000});

/**
 * Whether an age is in a range such as `<1d` or `>7d`. A range of another form has every age.
 * @param {string} created RFC 3339
 * @param {string} range
 * @param {number} now milliseconds since 1970
 */
export function aged(created, range, now) {
  const [, sign, count, unit = ""] = /^([<>])(\d{1,5})([mhd])$/.exec(range) ?? [];
  if (sign === undefined) return true;
  const least = Number(count) * (UNITS[unit] ?? 0);
  const age = now - Date.parse(created);
  return sign === "<" ? age < least : age >= least;
}

/** How a row is judged by each filter of the address. @type {Record<string, (row: Row, value: string, now: number) => boolean>} */
const JUDGES = {
  project: (row, value) => row.project === value,
  phase: (row, value) => row.phase === value,
  node: (row, value) => row.node === value,
  image: (row, value) => row.image === value,
  tag: (row, value) => row.tags.includes(value),
  label: (row, value) => row.labels.includes(value) || row.labels.some(label => label.startsWith(`${value}=`)),
  size: (row, value) => sizeOf(row) === value,
  age: (row, value, now) => aged(row.created, value, now),
};

/**
 * The rows that match the search and all filters.
 * @param {readonly Row[]} rows
 * @param {Record<string, string>} query
 * @param {number} now milliseconds since 1970
 * @returns {readonly Row[]}
 */
export function found(rows, query, now = Date.now()) {
  const judges = Object.entries(JUDGES).flatMap(([name, judge]) => {
    const value = query[name];
    return value ? [(/** @type {Row} */ row) => judge(row, value, now)] : [];
  });
  if (judges.length === 0 && !query["q"]) return rows;
  return rows.filter(row => judges.every(judge => judge(row)) && matches(row.text, query["q"]));
}

/**
 * What can be chosen, of what there is.
 * @param {readonly Row[]} rows
 * @param {boolean} everywhere whether they are of several projects
 * @returns {import("../../parts/filters.js").Choice[]}
 */
export function choices(rows, everywhere) {
  const sizes = new Map(rows.map(row => [sizeOf(row), row]));
  const many = (/** @type {(row: Row) => string[]} */ value) => [...new Set(rows.flatMap(value))].sort();
  return [
    ...(everywhere ? [{name: "project", label: "Project", options: values(rows, ({project}) => project)}] : []),
    {name: "phase", label: "State", options: values(rows, ({phase}) => phase)},
    {name: "node", label: "Node", options: values(rows, ({node}) => node)},
    {name: "image", label: "Image", options: values(rows, ({image}) => image)},
    {name: "tag", label: "Tag", options: many(({tags}) => tags)},
    {name: "label", label: "Label", options: many(({labels}) => labels)},
    {name: "size", label: "Size", options: [...sizes].sort(([, one], [, other]) => bigness(one) - bigness(other)).map(([value, row]) => ({value, text: sized(row)}))},
    {name: "age", label: "Age", options: AGES},
  ];
}

/**
 * The order of an address: `name`, or `-name` for the other way.
 * @param {string | undefined} text
 * @returns {import("../../parts/table.js").Sort}
 */
export const orderOf = text => (text ? {name: text.replace(/^-/, ""), descending: text.startsWith("-")} : {name: null, descending: false});

/**
 * A function that is only called again when what it is given is another.
 * @template {unknown[]} A
 * @template R
 * @param {(...given: A) => R} make
 * @returns {(...given: A) => R}
 */
export function remembered(make) {
  /** @type {{given: A, value: R} | null} */
  let last = null;
  return (...given) => {
    if (last === null || given.some((each, at) => each !== last?.given[at])) last = {given, value: make(...given)};
    return last.value;
  };
}
