/** Who is signed in, and what that allows. The gateway decides; the page only hides what it would refuse. */

export class Me {
  /**
   * @param {MeView} view
   * @param {boolean} needed whether callers need a token at all
   */
  constructor(view, needed) {
    this.principal = view.principal;
    this.roles = view.roles;
    this.readOnly = view.read_only;
    this.expires = view.expires_at;
    this.credential = view.credential;
    this.needed = needed;
    this.permissions = view.permissions ?? null;
  }

  /**
   * Whether a permission is given in a project (null: for what belongs to no project). A gateway that does not list
   * permissions leaves it to each call.
   * @param {string} permission such as `vm.create`
   * @param {string | null} project
   */
  may(permission, project = null) {
    if (this.readOnly && !permission.endsWith(".read")) return false;
    if (this.permissions === null) return true;
    return this.permissions.some(
      given => (given.project === null || given.project === project) && given.permissions.includes(permission),
    );
  }

  /**
   * Whether a permission is given anywhere: then a page is worth a link.
   * @param {string} permission
   */
  mayAnywhere(permission) {
    return this.permissions === null || this.permissions.some(given => given.permissions.includes(permission));
  }

  /** The roles in words. */
  get words() {
    const found = this.roles.map(({role, project}) => (project === null ? role : `${role} of ${project}`));
    return found.length > 0 ? found.join(", ") : "no role";
  }
}
