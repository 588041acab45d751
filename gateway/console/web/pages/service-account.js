/** One service account. */

import {account} from "./account.js";
import {SERVICES} from "./accounts.js";

export const page = account(SERVICES);
