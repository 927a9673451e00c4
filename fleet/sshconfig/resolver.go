package sshconfig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
)

// Resolver answers queries, and remembers files and answers. The zero value is ready to
// use.
type Resolver struct {
	// Program is ssh; default: that of the PATH. If it is "none", files are evaluated here.
	Program string
	// Home and System are for tests; default $HOME and /etc/ssh/ssh_config.
	Home, System string

	mu       sync.Mutex
	files    map[string]func() (*files, error)
	answers  map[string]func() (Options, error)
	program  func() string
	defaults func() (map[string][]string, error)
}

// Query names a host as on the command line of ssh.
type Query struct {
	File string // a configuration, "none", or "" for those of the user and the machine
	Host string
	User string // as by -l; empty: left to the configuration
	Port int    // as by -p; 0: left to the configuration
	// DefaultUser logs in if neither the query nor the configuration names a user.
	DefaultUser string
}

// Lookup returns the settings of a host.
func (r *Resolver) Lookup(ctx context.Context, q Query) (Options, error) {
	if q.File == "none" {
		return Options{}, nil
	}
	p, err := r.paths()
	if err != nil {
		return Options{}, err
	}
	f, err := once(r, &r.files, q.File, func() (*files, error) { return p.read(q.File) })
	switch {
	case err != nil:
		return Options{}, err
	case f.err != nil && r.ssh() == "":
		return Options{}, f.err
	case f.err == nil && len(f.lines) == 0:
		return Options{}, nil
	}
	if f.err == nil && plain(f.lines) {
		return evaluate(q, f.lines), nil
	}
	key := fmt.Sprintf("%q %q %d %q ", q.File, q.User, q.Port, q.DefaultUser)
	if f.dependent {
		key += q.Host
	} else {
		key += signature(q.Host, f.lines)
	}
	return once(r, &r.answers, key, func() (Options, error) { return r.answer(ctx, q, f) })
}

// once returns the value of a key, which the first caller makes.
func once[V any](r *Resolver, all *map[string]func() (V, error), key string, value func() (V, error)) (V, error) {
	r.mu.Lock()
	get := (*all)[key]
	if get == nil {
		if *all == nil {
			*all = map[string]func() (V, error){}
		}
		get = sync.OnceValues(value)
		(*all)[key] = get
	}
	r.mu.Unlock()
	return get()
}

func (r *Resolver) paths() (paths, error) {
	p := paths{home: r.Home, system: r.System}
	if p.home == "" {
		var err error
		if p.home, err = os.UserHomeDir(); err != nil {
			return p, errors.New("read ssh_config: HOME is not set")
		}
	}
	if p.system == "" {
		p.system = "/etc/ssh/ssh_config"
	}
	return p, nil
}

// answer asks ssh, or evaluates the files if there is none.
func (r *Resolver) answer(ctx context.Context, q Query, f *files) (Options, error) {
	program := r.ssh()
	if program == "" {
		return evaluate(q, f.lines), nil
	}
	defaults, err := r.baseline(ctx, program)
	if err != nil {
		return Options{}, err
	}
	text := f.text
	if q.DefaultUser != "" {
		text += "\nHost *\nUser " + quote(q.DefaultUser) + "\n"
	}
	printed, err := ask(ctx, program, text, q)
	if err != nil {
		name := q.File
		if name == "" {
			name = filepath.Join("~", ".ssh", "config")
		}
		return Options{}, fmt.Errorf("ssh -G %s: %s", q.Host, strings.ReplaceAll(err.Error(), stdin, name))
	}
	return changed(printed, defaults, q), nil
}

// changed returns the settings that differ from OpenSSH's own.
func changed(printed, defaults map[string][]string, q Query) Options {
	o := Options{values: map[string][]string{}}
	for keyword, v := range printed {
		switch {
		case keyword == "host", keyword == "user" && q.User != "", keyword == "port" && q.Port != 0:
		case keyword == "hostname" && v[0] == q.Host:
		case keyword != "user" && equal(v, defaults[keyword]):
		default:
			o.values[keyword] = v
		}
	}
	return o
}

func equal(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }

// currentUser returns the name of the user that runs this program.
func currentUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
