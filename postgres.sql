-- The roles of a Postgres that is Nebula's own, for `nebula up`, the tests and compose.yaml alike.
--
-- Run it in the database of the read models, as an administrator, at every start: it changes nothing that is right
-- already. Only set-up is the administrator. Handlers and nodes have no role.
--
--   nebula_projections   owns the read models: makes, renames and drops schemas in this database
--   nebula_gateway       reads of them what it serves: nebula_projections grants that, table by table
--
-- Their passwords are read from the settings nebula.projections_password and nebula.gateway_password of the session.

DO $$
DECLARE
    role text;
    found record;
BEGIN
    FOREACH role IN ARRAY ARRAY['projections', 'gateway'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'nebula_' || role) THEN
            EXECUTE format('CREATE ROLE %I', 'nebula_' || role);
        END IF;
        BEGIN
            EXECUTE format(
                'ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L',
                'nebula_' || role, current_setting('nebula.' || role || '_password'));
        EXCEPTION WHEN query_canceled OR OTHERS THEN
            -- Its own error would show the whole statement, here and in the server's log.
            RAISE EXCEPTION USING
                ERRCODE = SQLSTATE,
                MESSAGE = format('role %s did not get its rights and password: %s', 'nebula_' || role, SQLERRM);
        END;
    END LOOP;

    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO nebula_projections, nebula_gateway', current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO nebula_projections', current_database());

    -- Read models that an administrator made, before there were roles.
    FOR found IN
        SELECT nspname FROM pg_namespace
        WHERE nspname IN ('nebula', 'nebula_next', 'nebula_old', 'nebula_verify')
        AND nspowner <> 'nebula_projections'::regrole
    LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO nebula_projections', found.nspname);
    END LOOP;
    FOR found IN
        SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname IN ('nebula', 'nebula_next', 'nebula_old', 'nebula_verify')
        AND relkind = 'r' AND relowner <> 'nebula_projections'::regrole
    LOOP
        EXECUTE format('ALTER TABLE %I.%I OWNER TO nebula_projections', found.nspname, found.relname);
    END LOOP;
    FOR found IN SELECT nspname FROM pg_namespace WHERE nspowner = 'nebula_projections'::regrole LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO nebula_gateway', found.nspname);
    END LOOP;
END
$$;

ALTER DEFAULT PRIVILEGES FOR ROLE nebula_projections GRANT USAGE ON SCHEMAS TO nebula_gateway;
ALTER DEFAULT PRIVILEGES FOR ROLE nebula_projections REVOKE SELECT ON TABLES FROM nebula_gateway;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
