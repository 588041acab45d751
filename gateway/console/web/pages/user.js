/** One user. */

import {account} from "./account.js";
import {USERS} from "./accounts.js";

export const page = account(USERS);
