package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"github.com/vsfleet/vsfleet/internal/port"
)

// First holds the answers that a first inventory is made from.
type First struct {
	Hosts   []string // addresses or DNS names
	User    string   // to log in as; users other than root become root with sudo
	Release string   // of Debian or Ubuntu, for the image: "bookworm"
	Guest   string   // name of a guest, one on each host
	Ports   []string // of the guest on the hosts' addresses; none: a private network

	SSH map[string]string // further keys of the ssh block and their values
}

var firstTemplate = template.Must(template.New("").Parse(`# Hosts, images, and the guests that should exist. vsfleet inventory check looks for mistakes,
# vsfleet plan shows what would change, vsfleet apply changes it.
ssh:
  user: {{.User}}
{{- if ne .User "root"}}
  become: true            # root by sudo or doas
{{- end}}
{{- range $key, $value := .SSH}}
  {{$key}}: {{printf "%q" $value}}
{{- end}}

hosts:
{{- range .Named}}
  {{.Name}}: {address: "{{.Address}}"}
{{- end}}

images:
  {{.Release}}:
    method: debootstrap
    args: [-d, {{.Release}}]
    packages: [openssh-server]

guests:
  {{.Guest}}:                     # one on each host
    on: all
    image: {{.Release}}
    hostname: "{{.Guest}}-${host.name}"
{{- if .Ports}}
    network: {mode: shared, address: host, ports: [{{.List}}]}
{{- else}}
    network: {mode: nat}
{{- end}}
    init: plain
`))

// Text returns the inventory.
func (f First) Text() ([]byte, error) {
	named, err := f.named()
	if err != nil {
		return nil, err
	}
	for what, word := range map[string]string{"user": f.User, "release": f.Release, "guest": f.Guest} {
		if err := checkName(word, maxName); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	var ports []string
	for _, text := range f.Ports {
		p, err := port.Parse(text)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p.String())
	}
	var b strings.Builder
	err = firstTemplate.Execute(&b, struct {
		First
		Named []namedAddress
		List  string
	}{f, named, strings.Join(ports, ", ")})
	return []byte(b.String()), err
}

type namedAddress struct{ Name, Address string }

// named names each host: by the first label of its DNS name, else host1, host2 and so
// on.
func (f First) named() ([]namedAddress, error) {
	var list []namedAddress
	for i, text := range f.Hosts {
		address, err := parseAddress(text)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(address, ".")
		if _, err := netip.ParseAddr(address); err == nil || checkName(name, maxHostName) != nil {
			name = fmt.Sprintf("host%d", i+1)
		}
		taken := func(name string) bool {
			return name == "all" || slices.ContainsFunc(list, func(n namedAddress) bool { return n.Name == name })
		}
		for base, n := name, 2; taken(name); n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		list = append(list, namedAddress{name, address})
	}
	if list == nil {
		return nil, errors.New("no hosts: name at least one")
	}
	return list, nil
}
