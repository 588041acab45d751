/** All users. */

import {USERS, accounts} from "./accounts.js";

export const page = accounts(USERS);
