/**
 * The API's views, as the console reads them, and what a page is. Checked against `/v1/openapi.json` by
 * tests/console/test_types.py: a member that the API does not have, or that has another type there, fails.
 */

interface ListOf<T> {
  items: T[];
  next_page_token: string | null;
  position: number;
}

interface GrantView {
  role: string;
  project: string | null;
}

interface MeView {
  principal: string;
  roles: GrantView[];
  read_only: boolean;
  credential: string | null;
  expires_at: string | null;
  permissions?: {project: string | null; permissions: string[]}[];
}

interface SessionView {
  principal: string;
  csrf: string;
  expires_at: string;
  expires_in: number;
  renewable: boolean;
}

interface LoginView {
  token_needed: boolean;
  oidc: {issuer: string} | null;
}

interface ProjectView {
  id: string;
  name: string;
  tags: string[];
  description: string | null;
  ssh_keys: string[];
  members: {principal: string; role: string}[];
  created_at: string;
  created_by: string | null;
}

interface Size {
  vcpus: number;
  memory_mib: number;
  disk_gib: number;
}

interface UsedSize extends Size {
  vms: number;
}

interface UsageView {
  project: string;
  in_use: UsedSize;
  promised: UsedSize;
}

interface WarningView {
  code: string;
  detail: string;
}

interface VmView {
  id: string;
  project: string;
  name: string;
  phase: string;
  desired: string;
  ready: boolean;
  image: string;
  rescue: string | null;
  vcpus: number;
  memory_mib: number;
  disk_gib: number;
  running_spec: Size | null;
  pending_resize: boolean;
  region: string | null;
  tags: string[];
  labels: Record<string, string>;
  protected: boolean;
  restart_policy: string;
  watchdog: string;
  restart_at: string | null;
  restarts: number;
  description: string | null;
  created_by: string | null;
  flavor: string | null;
  ssh_keys: string[];
  has_user_data: boolean;
  warnings: WarningView[];
  node: string | null;
  mac: string | null;
  addresses: string[];
  address_sources: {address: string; source: string}[];
  host_keys: {type: string; key: string; fingerprint: string}[];
  boots: number;
  guest_boots: number;
  rebuilds: number;
  pending: {operation: string; verb: string; since: string; deadline: string} | null;
  preparing: string | null;
  forgotten: string | null;
  failure: {code: string; detail: string; at: string} | null;
  considered: {node: string; reason: string | null; more: number}[];
  created_at: string;
  started_at: string | null;
  ready_at: string | null;
  first_ready_at: string | null;
  updated_at: string;
  version: number;
  position: number;
}

interface NodeView {
  id: string;
  status: string;
  region: string;
  virt_type: string;
  architecture: string;
  capacity: Size;
  reserved: Size;
  vms: number;
  cordoned: boolean;
  lost: boolean;
  last_seen: string | null;
  clock_warning: string | null;
  agent_version: string;
  registered_at: string;
  retired_at: string | null;
  malformed_documents: number | null;
  clock_offset_seconds: number | null;
  daemon: DaemonView | null;
  waiting: {host: string; pid: number}[];
  image_cache: {images: number; bytes: number; budget_bytes: number | null} | null;
  position: number;
}

interface ImageView {
  id: string;
  name: string;
  phase: string;
  project: string | null;
  source: string;
  sha256: string | null;
  sha512: string | null;
  distribution: string | null;
  release: string | null;
  architecture: string;
  description: string | null;
  format: string | null;
  size_bytes: number | null;
  virtual_size_bytes: number | null;
  firmware: string;
  seed: string;
  fetch: string;
  failure: string | null;
  created_at: string;
}

interface FlavorView {
  id: string;
  name: string;
  vcpus: number;
  memory_mib: number;
  disk_gib: number;
  deprecated: boolean;
  project: string | null;
  labels: Record<string, string>;
  description: string | null;
  created_at: string;
}

interface Operation {
  id: string;
  verb: string;
  kind: string;
  resource: string;
  project: string;
  status: string;
  actor: string;
  request_id: string | null;
  accepted_at: string;
  ended_at: string | null;
  deadline: string | null;
  position: number;
  problem: {code: string; detail: string} | null;
  progress: {bytes_done: number; bytes_total: number | null} | null;
  warnings: WarningView[];
  events: {position: number; type: string; time: string}[];
}

interface JudgedView {
  accepted: boolean;
  code: string | null;
  why: string | null;
}

interface VerbView extends JudgedView {
  verb: string;
  forced: JudgedView | null;
}

interface PreviewView {
  node: string | null;
  considered: {node: string; reason: string | null; more: number}[];
  warnings: WarningView[];
}

interface UsagePoint {
  at: string;
  cpu: number | null;
  memory_bytes: number | null;
  disk_bytes: number | null;
  disk_read: number | null;
  disk_written: number | null;
  net_in: number | null;
  net_out: number | null;
}

interface UsageSeriesView {
  from: string;
  to: string;
  step_seconds: number;
  size: {cpus: number | null; memory_bytes: number | null; disk_bytes: number | null};
  points: UsagePoint[];
}

interface GuestView {
  hostname: string | null;
  os: {id: string | null; name: string | null; version: string | null; kernel_release: string | null; machine: string | null} | null;
  timezone: {name: string | null; offset_seconds: number} | null;
  interfaces: {name: string; mac: string | null; addresses: {address: string; prefix: number | null}[]}[] | null;
  more_interfaces: number;
  filesystems: {mountpoint: string; total_bytes: number | null; used_bytes: number | null}[] | null;
  more_filesystems: number;
}

interface PartOfHealth {
  status: string;
  detail?: string;
  since?: string;
}

/** What is optional is for auditors and operators. */
interface HealthView {
  status: string;
  commands?: PartOfHealth;
  log?: PartOfHealth;
  nats?: PartOfHealth;
  postgres?: PartOfHealth;
  projections?: PartOfHealth;
  managers?: {name: string; failing_since: string | null; last_error: string | null}[];
  parked?: number;
  parked_more?: number;
  malformed?: Record<string, {count: number; last_reason?: string}>;
  clocks_off?: {node: string; offset_seconds: number}[];
}

/** An event as the API shows it: a CloudEvent. `prev`: only in a feed. */
interface CloudEvent {
  position: number;
  subject: string;
  type: string;
  time?: string;
  actor?: string;
  operationid?: string;
  requestid?: string;
  data?: Record<string, unknown>;
  prev?: number;
  words?: string;
  why?: string | null;
}

/** An event as pages get it from the feed. `type`: without its prefix, such as `VmStarted`. */
interface LogEvent {
  position: number;
  prev: number;
  type: string;
  project: string;
  kind: string;
  id: string;
  time: string;
  actor: string;
  operation: string | null;
  data: Record<string, unknown>;
}

type QueryValues = Record<string, string | number | boolean | null | undefined>;

/** What the console uses of Trusted Types, which not all browsers have. */
interface TrustedPolicies {
  createPolicy(name: string, rules: {createScriptURL(url: string): string}): {createScriptURL(url: string): unknown};
}

/** What a page gets. It calls neither `fetch` nor `location` itself. */
interface Context {
  api: import("./api.js").Api;
  live: import("./live.js").Live;
  keys: import("./keys.js").Keys;
  me: import("./me.js").Me;
  /** The parameters of its path. */
  params: Record<string, string>;
  /** The query of its address. */
  query: Record<string, string>;
  /** The moment that is shown; null for now. Reads have it already. */
  at: string | null;
  /** Ends when the page is left. */
  signal: AbortSignal;
  /** The projects that the user may see, as they were when they were last read for the frame. */
  projects(): Promise<ProjectView[]>;
  /** Go to another page. */
  go(path: string, values?: Record<string, string>, query?: QueryValues): void;
  /** Change values of the query of this address; null removes one. */
  ask(values: QueryValues): void;
  /** Show another moment of this page; null for now. */
  travel(at: string | null): void;
  /** Render again: the page's data have changed. */
  changed(): void;
  /** Load again, soon. */
  refresh(): void;
}

/** A page. `D`: what it has read, and what it keeps while it is shown. */
interface Page<D = any> {
  /** The title of the window. */
  title?(context: Context, data: D | undefined): string;
  /** Read what is shown. `before`: what was read before, if the same page is read again. Raises Problem. */
  load?(context: Context, before: D | undefined): Promise<D>;
  view(context: Context, data: D): unknown;
  /** An event of the log. Events that have been read already may come again. */
  live?(event: LogEvent, context: Context, data: D): void;
  /** The keys that work while it is shown. */
  keys?(context: Context, data: D): import("./keys.js").Key[];
  /** Whether `load` depends on the query: then a change of it reads again. */
  reads?: boolean;
}

/** The line of a page in pages/index.js. */
interface PageEntry {
  /** With parameters, such as `/projects/:project/vms/:vm`. */
  path: string;
  title: string;
  /** Without it anywhere, the menu does not show the page. */
  permission?: string;
  menu?: {icon: string; key: string};
  module(): Promise<{page: Page}>;
}
