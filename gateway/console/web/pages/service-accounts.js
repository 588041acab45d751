/** All service accounts. */

import {SERVICES, accounts} from "./accounts.js";

export const page = accounts(SERVICES);
