/** Which reads take which parameter: made of the table of all reads by `python -m tests.console.calls`. */

/** Reads that take `min_position`. */
export const FRESH = [
  /^\/v1\/enrollments$/,
  /^\/v1\/enrollments\/[^\/]+$/,
  /^\/v1\/events$/,
  /^\/v1\/events\/[^\/]+$/,
  /^\/v1\/flavors$/,
  /^\/v1\/flavors\/[^\/]+$/,
  /^\/v1\/images$/,
  /^\/v1\/images\/[^\/]+$/,
  /^\/v1\/marks$/,
  /^\/v1\/nodes$/,
  /^\/v1\/nodes\/[^\/]+$/,
  /^\/v1\/nodes\/[^\/]+\/usage$/,
  /^\/v1\/operations$/,
  /^\/v1\/operations\/[^\/]+$/,
  /^\/v1\/projects$/,
  /^\/v1\/projects\/[^\/]+$/,
  /^\/v1\/projects\/[^\/]+\/usage$/,
  /^\/v1\/projects\/[^\/]+\/vms$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/console$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/console-log$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/guest$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/usage$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/verbs$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+\/vnc$/,
  /^\/v1\/service-accounts$/,
  /^\/v1\/service-accounts\/[^\/]+$/,
  /^\/v1\/tags$/,
  /^\/v1\/tags\/[^\/]+$/,
  /^\/v1\/tokens$/,
  /^\/v1\/tokens\/[^\/]+$/,
  /^\/v1\/users$/,
  /^\/v1\/users\/[^\/]+$/,
];

/** Reads that take `at`. */
export const TRAVELS = [
  /^\/v1\/projects\/[^\/]+\/usage$/,
  /^\/v1\/projects\/[^\/]+\/vms\/[^\/]+$/,
];
