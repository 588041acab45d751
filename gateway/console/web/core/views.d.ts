/** More of the API's views, for the pages that are not of VMs. They are checked like those of types.d.ts. */

interface LinkView {
  position: number;
  digest: string;
}

interface ChainView {
  valid: boolean;
  fault: {code: string; reason: string} | null;
  mac: string;
  previous: LinkView | null;
  linked: boolean;
  following: LinkView | null;
  confirmed: boolean | null;
  checkpoint: {position: number; digest: string; time: string; key: string; signed: boolean | null; matches: boolean | null} | null;
}

interface DaemonView {
  host: string;
  pid: number;
  since: string;
  lease: number;
}

interface EnrollmentView {
  id: string;
  status: string;
  fingerprint: string | null;
  joined_at: string | null;
  revoked_at: string | null;
  token_expires_at: string | null;
}

interface ProcessView {
  id: string;
  host: string;
  pid: number;
}

interface RoleView {
  role: string;
  process: ProcessView | null;
  version: string | null;
  alive: boolean;
  last_seen: string | null;
  lag: number | null;
  last_error: string | null;
  failing_since: string | null;
}

interface ManagerView {
  name: string;
  process: ProcessView | null;
  alive: boolean;
  last_run: string | null;
  last_error: string | null;
  failing_since: string | null;
  running: number;
  backing_off: number;
  items: string[];
}

interface NodeStatusView {
  node: string;
  alive: boolean;
  last_seen: string | null;
  state: string | null;
  clock_warning: string | null;
}

interface StatusView {
  position: number | null;
  roles: RoleView[];
  managers: ManagerView[];
  leases: {name: string; process: ProcessView | null; alive: boolean}[];
  nodes: NodeStatusView[];
  parked: {open: number; total: number; more: number};
}

interface ParkedSummary {
  source: string;
  key: string;
  status: string;
  subject: string;
  position: number;
  error: string;
  time: string;
  size: number;
  count: number;
  reason: string | null;
  closed_at: string | null;
  actor: string | null;
}

interface ParkedView extends ParkedSummary {
  headers: Record<string, string>;
  data_base64: string | null;
  message: Record<string, unknown> | null;
}

interface RefusalView {
  at: string;
  status: number;
  code: string;
  address: string;
  credential: string | null;
  actor: string | null;
  method: string;
  path: string;
  request: string;
  count: number;
}

interface AccountView {
  id: string;
  name: string;
  roles: string[];
  disabled: boolean;
  created_at: string;
}

interface TokenView {
  id: string;
  name: string;
  principal: string;
  expires_at: string;
  project: string | null;
  role: string | null;
  read_only: boolean;
  last_used_at: string | null;
  created_by: string | null;
  created_at: string;
}

interface NamedView {
  id: string;
  name: string;
  created_at: string;
}
