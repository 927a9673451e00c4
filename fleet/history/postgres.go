package history

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// CheckStore returns an error if the setting is not valid.
func CheckStore(address string) error {
	if address == "" || address == "none" {
		return nil
	}
	_, err := parsePostgres(address)
	return err
}

// parsePostgres reads the address of a PostgreSQL database. Its errors do not show the
// password.
func parsePostgres(address string) (*pgx.ConnConfig, error) {
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return nil, errors.New("want postgres://USER@HOST/DATABASE or none")
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("address of the store: %s", strings.ReplaceAll(err.Error(), address, shown(address)))
	}
	return config, nil
}

// shown returns the address of a store without passwords, including those in its
// parameters.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "postgres://…"
	}
	u.RawQuery = ""
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	return u.String()
}

// openPostgres prepares connections to a PostgreSQL database. The password is taken
// from the address, PGPASSWORD or ~/.pgpass.
func openPostgres(k Keeper) (*store, error) {
	config, err := parsePostgres(k.Store)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > connectTimeout {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "vsfleet"
	}
	// Poolers such as PgBouncer do not support prepared statements across transactions.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(2)
	// Any number, the same for all: "vsfleet" on a telephone.
	return &store{db: db, name: shown(k.Store), lock: `SELECT pg_advisory_xact_lock(8735338)`}, nil
}

// connectTimeout limits the time for a connection, unless the address sets a shorter
// one.
const connectTimeout = 5 * time.Second
