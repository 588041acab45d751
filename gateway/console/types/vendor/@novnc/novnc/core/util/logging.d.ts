export function initLogging(level: "none"): void;
