package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

// SSHConfig makes a draft of the hosts that an ssh_config names; an empty file means
// the user's. The draft has all their settings, so that the fleet.yml does not need the
// file.
func SSHConfig(ctx context.Context, resolver *sshconfig.Resolver, file string) (*Draft, error) {
	d := &Draft{Source: cmp.Or(file, "~/.ssh/config")}
	names, left, err := resolver.Names(file)
	if err != nil {
		return nil, err
	}
	d.Left = left
	for _, name := range names {
		o, err := resolver.Lookup(ctx, sshconfig.Query{File: file, Host: name})
		if err != nil {
			return nil, err
		}
		d.Left = append(d.Left, o.Skipped...)
		d.sshHost(name, o)
	}
	if len(d.hosts) == 0 {
		if home, err := os.UserHomeDir(); file == "" && err == nil {
			if _, err := os.Stat(filepath.Join(cmp.Or(resolver.Home, home), ".ssh/config")); errors.Is(err, fs.ErrNotExist) {
				return nil, errors.New("~/.ssh/config does not exist: name the file to import")
			}
		}
		return nil, fmt.Errorf("%s names no host without a pattern", d.Source)
	}
	d.lift()
	return d, nil
}

// taken are the keywords that have a key in fleet.yml, or a meaning here.
var taken = map[string]string{
	"user": "user", "port": "port", "identityfile": "identity", "proxyjump": "jump", "hostkeyalias": "host_key_alias", "userknownhostsfile": "known_hosts",
}

func (d *Draft) sshHost(name string, o sshconfig.Options) {
	h := &host{name: name, block: block{ssh: map[string]string{}}}
	if address := o.Value("hostname"); !strings.EqualFold(address, name) {
		h.address = address
	}
	for _, keyword := range o.Keywords() {
		value, key := o.Value(keyword), taken[keyword]
		switch {
		case keyword == "hostname", keyword == "port" && value == "22":
		case keyword == "proxycommand":
			args := ansible.ParseSSHArgs("-o 'ProxyCommand=" + strings.ReplaceAll(value, "'", `'\''`) + "'")
			if h.ssh["jump"] = args.Jump; args.Jump == "" {
				d.leave("%s: ProxyCommand %s: it does more than ssh through a jump host", name, value)
			}
			for _, unknown := range args.Unknown {
				if args.Jump != "" {
					d.leave("%s: %s", name, unknown)
				}
			}
		case keyword == "stricthostkeychecking":
			if words := map[string]string{"yes": "strict", "true": "strict", "ask": "ask", "accept-new": "accept-new"}; words[value] != "" {
				h.ssh["host_key"] = words[value]
			} else {
				d.leave("%s: StrictHostKeyChecking %s: host keys are always checked", name, value)
			}
		case key == "":
			if !slices.Contains(harmless, keyword) {
				d.leave("%s: %s %s: fleet.yml has no key for it", name, keyword, strings.Join(o.Values(keyword), " "))
			}
		case strings.ContainsAny(value, "%$ \"") || value == "/dev/null":
			d.leave("%s: %s %s: fleet.yml has no tokens, and names of one word", name, keyword, value)
		default:
			if more := o.Values(keyword); len(more) > 1 {
				d.leave("%s: %s: only the first of %s", name, keyword, strings.Join(more, " "))
			}
			h.ssh[key] = value
		}
	}
	d.add(h)
}

// harmless keywords do not affect which machine is reached, as which user and by which
// route.
var harmless = []string{
	"addkeystoagent", "batchmode", "checkhostip", "compression", "connectionattempts", "connecttimeout", "controlmaster", "controlpath", "controlpersist",
	"escapechar", "exitonforwardfailure", "forwardx11", "forwardx11trusted", "gssapiauthentication", "gssapidelegatecredentials", "hashknownhosts", "identitiesonly",
	"ignoreunknown", "ipqos", "loglevel", "permitlocalcommand", "preferredauthentications", "pubkeyauthentication", "requesttty", "sendenv",
	"serveralivecountmax", "serveraliveinterval", "setenv", "tcpkeepalive", "updatehostkeys", "usekeychain", "visualhostkey", "xauthlocation",
}

// KnownHosts makes a draft of the hosts in a known_hosts file.
func KnownHosts(file string) (*Draft, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return knownHosts(file, string(data))
}

func knownHosts(file, data string) (*Draft, error) {
	d := &Draft{Source: file}
	hashed, number := 0, 0
	seen := map[string]bool{}
	for line := range strings.Lines(data) {
		number++
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0][0] == '#' {
			continue
		}
		switch {
		case fields[0][0] == '@':
			d.leave("%s:%d: %s %s: no host by itself", file, number, fields[0], fields[1])
		case strings.HasPrefix(fields[0], "|"):
			hashed++
		case !seen[fields[0]]:
			seen[fields[0]] = true
			d.knownHost(fmt.Sprintf("%s:%d", file, number), strings.Split(fields[0], ","))
		}
	}
	if hashed > 0 {
		d.leave("%s: %d lines with hashed names, which cannot be read back", file, hashed)
	}
	if len(d.hosts) == 0 {
		return nil, fmt.Errorf("%s has no host names that are not hashed", file)
	}
	d.lift()
	return d, nil
}

// knownHost adds the host of a line, by the first of its names that is not an address, at
// the first that is one.
func (d *Draft) knownHost(place string, names []string) {
	var best *host
	address := ""
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "*?!") {
			d.leave("%s: %s: a pattern", place, name)
			continue
		}
		h := &host{name: name, block: block{ssh: map[string]string{}}}
		if inner, port, ok := strings.Cut(strings.TrimPrefix(name, "["), "]:"); ok && name[0] == '[' {
			h.name = inner
			if port != "22" {
				h.ssh["port"] = port
			}
		}
		if address == "" && isIP(h.name) {
			address = h.name
		}
		if best == nil || isIP(best.name) && !isIP(h.name) {
			best = h
		}
	}
	if best == nil {
		return
	}
	if best.name != address {
		best.address = address
	}
	for _, other := range d.hosts {
		if other.ssh["port"] == best.ssh["port"] && (other.name == best.name || best.address == "" && other.where() == best.name) {
			return // its key of another type
		}
	}
	d.add(best)
}
