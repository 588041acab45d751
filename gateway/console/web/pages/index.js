/** All pages, one line each. A page is loaded when it is opened; `menu`: where it stands in the menu. */

/** @type {PageEntry[]} */
export const PAGES = [
  {path: "/", title: "Overview", menu: {icon: "overview", key: "o"}, module: () => import("./overview.js")},
  {path: "/projects/:project/vms", title: "Virtual machines", permission: "vm.read", menu: {icon: "vm", key: "v"}, module: () => import("./vms.js")},
  {path: "/projects/:project/vms/:vm", title: "Virtual machine", permission: "vm.read", module: () => import("./vm.js")},
  {path: "/log", title: "Log", permission: "event.read", menu: {icon: "log", key: "l"}, module: () => import("./log.js")},
  {path: "/log/:position", title: "Event", permission: "event.read", module: () => import("./event.js")},
  {path: "/operations", title: "Operations", permission: "operation.read", menu: {icon: "operation", key: "e"}, module: () => import("./operations.js")},
  {path: "/operations/:operation", title: "Operation", permission: "operation.read", module: () => import("./operation.js")},
  {path: "/nodes", title: "Nodes", permission: "node.read", menu: {icon: "node", key: "d"}, module: () => import("./nodes.js")},
  {path: "/nodes/:node", title: "Node", permission: "node.read", module: () => import("./node.js")},
  {path: "/projects", title: "Projects", permission: "project.read", menu: {icon: "project", key: "p"}, module: () => import("./projects.js")},
  {path: "/projects/:project", title: "Project", permission: "project.read", module: () => import("./project.js")},
  {path: "/images", title: "Images", permission: "image.read", menu: {icon: "image", key: "i"}, module: () => import("./images.js")},
  {path: "/images/:image", title: "Image", permission: "image.read", module: () => import("./image.js")},
  {path: "/status", title: "Status", permission: "status.read", menu: {icon: "status", key: "s"}, module: () => import("./status.js")},
  {path: "/parked", title: "Parked messages", permission: "parked.read", menu: {icon: "parked", key: "m"}, module: () => import("./parked.js")},
  {path: "/parked/:source/:key", title: "Parked message", permission: "parked.read", module: () => import("./parked-one.js")},
  {path: "/refusals", title: "Refusals", permission: "status.read", menu: {icon: "refusals", key: "r"}, module: () => import("./refusals.js")},
];
