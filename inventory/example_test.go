package inventory_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/inventory"
)

// file writes an inventory and returns its path.
func file(text string) string {
	dir, err := os.MkdirTemp("", "inventory")
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "fleet.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		log.Fatal(err)
	}
	return path
}

func ExampleLoad() {
	path := file(`
hosts:
  web[1:2]: {address: "203.0.113.[11:12]", labels: {site: fra}}
images:
  bookworm: {method: debootstrap, args: [-d, bookworm]}
guests:
  www:
    on: "site=fra"
    image: bookworm
    context: 120
    hostname: "www-${host.name}"
    network: {mode: shared, ports: [80/tcp]}
`)
	defer os.RemoveAll(filepath.Dir(path))
	inv, err := inventory.Load(path)
	if err != nil {
		log.Fatal(err)
	}
	for _, host := range inv.Hosts {
		for _, guest := range host.Guests {
			fmt.Println(host.Name, host.Address, guest.Name, guest.Context, guest.Hostname)
		}
	}
	// Output:
	// web1 203.0.113.11 www 120 www-web1
	// web2 203.0.113.12 www 120 www-web2
}

// All mistakes of all files come at once, each with its place.
func ExampleLoad_mistakes() {
	path := file(`hosts:
  web1: {adress: 203.0.113.11}
  web2: {address: 203.0.113.12, port: 220000}
`)
	defer os.RemoveAll(filepath.Dir(path))
	_, err := inventory.Load(path)
	var mistakes *inventory.Errors
	if errors.As(err, &mistakes) {
		for _, m := range mistakes.All {
			fmt.Printf("line %d, column %d: %s; %s\n", m.Pos.Line, m.Pos.Column, m.Msg, m.Hint)
		}
	}
	// Output:
	// line 2, column 10: unknown key "adress"; did you mean "address"?
	// line 3, column 39: port: want a number from 1 to 65535, have "220000";
}

func ExampleInventory_Select() {
	path := file(`
hosts:
  web[01:03]: {address: "203.0.113.[11:13]", labels: {site: fra}}
  db1:        {address: 203.0.113.20, labels: {site: ber}}
groups:
  web: {hosts: ["web*"]}
`)
	defer os.RemoveAll(filepath.Dir(path))
	inv, err := inventory.Load(path)
	if err != nil {
		log.Fatal(err)
	}
	for _, pattern := range []string{"web", "all:!web02", "site in (ber)", "~web0[12]"} {
		hosts, err := inv.Select(pattern)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(pattern, ":")
		for _, host := range hosts {
			fmt.Print(" ", host.Name)
		}
		fmt.Println()
	}
	// Output:
	// web: web01 web02 web03
	// all:!web02: web01 web03 db1
	// site in (ber): db1
	// ~web0[12]: web01 web02
}
