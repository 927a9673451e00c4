package inventory

import (
	"errors"
	"strings"
	"testing"
)

const fleetForPatterns = `
hosts:
  web[01:03]: {labels: {site: fra, role: web}}
  web04: {labels: {site: ber, role: web}}
  db1: {labels: {site: fra, role: db}}
  db2: {labels: {site: ber, role: db}}
  spare: {}
groups:
  web: {hosts: "web*"}
  db: {hosts: "role=db"}
  fra: {hosts: "site=fra"}
  eu-west: {children: [fra]}
images: {deb: {method: template, args: [-t, /srv/box.tar]}}
guests:
  www: {on: web, image: deb}
  www-cache: {on: web01, image: deb}
  mail: {on: "web01,db1", image: deb}
`

func hostNames(hosts []*Host) string {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.Name
	}
	return strings.Join(names, " ")
}

func TestSelect(t *testing.T) {
	inv := mustLoad(t, fleetForPatterns)
	write(t, ".", "list", "# those that failed\nweb02\n\n  db:&fra  \n")
	write(t, ".", "empty", "# none\n")
	write(t, ".", "bad", "web01\nweb05\n")
	write(t, ".", "loop", "@loop\n")
	const every = "web01 web02 web03 web04 db1 db2 spare"
	for _, row := range []struct{ name, pattern, want, err string }{
		{"a host", "web02", "web02", ""},
		{"a group", "db", "db1 db2", ""},
		{"a group of groups", "eu-west", "web01 web02 web03 db1", ""},
		{"every host", "all", every, ""},
		{"every host by a star", "*", every, ""},
		{"in the inventory's order, each once", "db1,web02,db1:web01", "web01 web02 db1", ""},
		{"a glob", "web0[!3-4]", "web01 web02", ""},
		{"a set as vsfleet, pdsh and clush print it", "db[1-2]", "db1 db2", ""},
		{"a set of ranges and numbers", "web[01-02,03]", "web01 web02 web03", ""},
		{"a set in the list of others", "db1,web[02-03]", "web02 web03 db1", ""},
		{"a set with a step", "web[01-03/2]", "web01 web03", ""},
		{"a set without what another leaves", "web[01-03]:!web[02-03]", "web01", ""},
		{"a glob with exceptions", "db[!1]", "db2", ""},
		{"a glob with one letter", "db?", "db1 db2", ""},
		{"a glob of groups", "eu-*", "web01 web02 web03 db1", ""},
		{"a regular expression", `~web0[13]|db\d`, "web01 web03 db1 db2", ""},
		{"a regular expression from the name's start", "~pare|spa", "spare", ""},
		{"a regular expression with a colon and a comma", "~(?:web)0[1,2]:db1", "web01 web02 db1", ""},
		{"a range", "web[02:03]", "web02 web03", ""},
		{"a range and a glob", "web0[1:2]*", "web01 web02", ""},
		{"a union by colon", "web01:db", "web01 db1 db2", ""},
		{"a union by comma", "web01,db", "web01 db1 db2", ""},
		{"an intersection", "web:&fra", "web01 web02 web03", ""},
		{"an exclusion", "web:!web02", "web01 web03 web04", ""},
		{"an exclusion by comma", "web,!web02", "web01 web03 web04", ""},
		{"unions come first, exclusions last, wherever they stand", "!web02:&fra:web:db", "web01 web03 db1", ""},
		{"only an exclusion", "!web", "db1 db2 spare", ""},
		{"only an intersection", "&fra", "web01 web02 web03 db1", ""},
		{"spaces around parts", " web01 , db1 : & fra ", "web01 db1", ""},
		{"a label", "site=fra", "web01 web02 web03 db1", ""},
		{"a label as Kubernetes writes it", "site==fra", "web01 web02 web03 db1", ""},
		{"not a label, and hosts without it", "site!=fra", "web04 db2 spare", ""},
		{"one of several", "role in (web, db),site=ber", "web04 db2", ""},
		{"none of several", "role notin (db)", "web01 web02 web03 web04 spare", ""},
		{"without spaces", "role in(db)", "db1 db2", ""},
		{"a label and a name", "web:&site=ber", "web04", ""},
		{"a label or a name", "spare:site=ber,role=db", "db2 spare", ""},
		{"not those labels", "web:!site=fra,role=web", "web04", ""},
		{"the first host of a group", "web[0]", "web01", ""},
		{"the last host of a group", "web[-1]", "web04", ""},
		{"the hosts of a group from a place on", "web[2:]", "web03 web04", ""},
		{"hosts of a group by their places", "fra[1:2]", "web02 web03", ""},
		{"more places than there are", "fra[2:9]", "web03 db1", ""},
		{"the first host of all", "all[0]", "web01", ""},
		{"a slice among others", "db:!db[0]", "db2", ""},
		{"hosts in no group", "ungrouped", "spare", ""},
		{"a file", "@list", "web02 db1", ""},
		{"a file and a name", "@list:!db1", "web02", ""},

		{"nothing", "", "", `pattern "" has an empty part`},
		{"an empty part", "web::db", "", `pattern "web::db" has an empty part`},
		{"an operator alone", "web:&", "", `pattern "web:&" has an empty part`},
		{"an unknown name", "wbe", "", `no host or group matches "wbe" (did you mean "web"?)`},
		{"an unknown host", "web05", "", `no host or group matches "web05" (did you mean "web01"?)`},
		{"an unknown name among others", "web:dbb1", "", `no host or group matches "dbb1" (did you mean "db1"?)`},
		{"an unknown name to leave out", "web:!wbe02", "", `no host or group matches "wbe02" (did you mean "web02"?)`},
		{"a glob that matches nothing", "mail*", "", `no host or group matches "mail*"`},
		{"a glob with a slip", "wbe*", "", `no host or group matches "wbe*" (did you mean "web"?)`},
		{"a range with a host that is not there", "web[03:05]", "", `no host or group matches "web05" of web[03:05] (did you mean "web01"?)`},
		{"places that could be numbers", "web[1:3]", "", `no host or group matches "web1" of web[1:3] (did you mean "web01"?)`},
		{"places that a group has not", "fra[7]", "", `pattern "fra[7]": fra has 4 hosts, counted from 0: there is none at these places`},
		{"places from an end that a group has not", "fra[-5]", "", `pattern "fra[-5]": fra has 4 hosts, counted from 0: there is none at these places`},
		{"a range backwards", "web[3:1]", "", `pattern "web[3:1]": [3:1]: it ends before it begins`},
		{"digits that could be a number or a class", "db[12]", "", `pattern "db[12]": [12] could be the number 12 or any of its digits: write the number without brackets, or [1,2]`},
		{"a class that was meant to leave a set out", "web[!01-02]", "", `pattern "web[!01-02]": [!01-02] matches one character, and has a number of several digits: want a set, as [8-11], and to leave hosts out a part of its own, as web*:!web[8-11]`},
		{"a set of hosts that are not there", "db[2-11]", "", `no host or group matches "db3" of db[2-11] (did you mean "db1"?)`},
		{"parts that have nothing in common", "web:&db", "", `pattern "web:&db" leaves no host`},
		{"a regular expression that is none", "~web(", "", "pattern \"~web(\": error parsing regexp: missing closing ): `^(?:web()`"},
		{"a regular expression that matches nothing", "~mail", "", `no host or group matches "~mail"`},
		{"a glob that is none", "web[1", "", `pattern "web[1": a [ without a ], or a \ at the end`},
		{"an unknown label", "stie=fra", "", `selector "stie=fra": no host has a label "stie" (did you mean "site"?)`},
		{"an unknown label that should not be", "stie!=fra", "", `selector "stie!=fra": no host has a label "stie" (did you mean "site"?)`},
		{"a value that no host has", "site=far", "", `selector "site=far": no host has site=far (did you mean "fra"?)`},
		{"a value that no host has among others", "role in (web,dbb)", "", `selector "role in (web,dbb)": no host has role=dbb (did you mean "db"?)`},
		{"labels that no host has together", "role=db,role=web", "", `no host matches "role=db,role=web"`},
		{"a selector that is none", "role within (a)", "", `selector "role within (a)": want NAME=VALUE, NAME!=VALUE, NAME in (A,B) or NAME notin (A,B)`},
		{"a selector that does not end", "role in (a", "", `selector "role in (a": want NAME=VALUE, NAME!=VALUE, NAME in (A,B) or NAME notin (A,B)`},
		{"a value with a space", "site=f ra", "", `selector "site=f ra": site has the value "f ra": want 1 to 63 letters, digits, _ . -`},
		{"a selector without a label", "=fra", "", `selector "=fra": "" is no name: want a letter or digit, then up to 62 letters, digits, _ . -`},
		{"names and labels with a comma", "web,site=fra", "", `pattern "web,site=fra" mixes names and labels with a comma, which could mean either or both (write "web:site=fra" for either, "web:&site=fra" for both)`},
		{"a file that is not there", "@no-such", "", `pattern "@no-such": open no-such: no such file or directory`},
		{"a file without hosts", "@empty", "", "empty: the file names no host"},
		{"a file with an unknown host", "@bad", "", `bad:2:1: no host or group matches "web05" (did you mean "web01"?)`},
		{"a file that names a file", "@loop", "", `loop:1:1: pattern "@loop": a file of hosts is read from the command line only`},
	} {
		t.Run(row.name, func(t *testing.T) {
			hosts, err := inv.Select(row.pattern)
			if text := errorText(t, err); text != row.err {
				t.Fatalf("Select(%q):\n got error %s\nwant       %s", row.pattern, text, row.err)
			}
			if got := hostNames(hosts); got != row.want {
				t.Errorf("Select(%q) = %s, want %s", row.pattern, got, row.want)
			}
		})
	}
}

// errorText is what an error says; every error of a pattern is an *Error.
func errorText(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%v is a %T", err, err)
	}
	return err.Error()
}

func TestSelectInAnInventoryWithoutHosts(t *testing.T) {
	inv := mustLoad(t, "hosts: {}\n")
	_, err := inv.Select("all")
	if text := errorText(t, err); text != `pattern "all": the inventory has no hosts` {
		t.Error(text)
	}
}

func TestSelectGuests(t *testing.T) {
	inv := mustLoad(t, fleetForPatterns)
	for _, row := range []struct{ name, pattern, want, err string }{
		{"one guest on one host", "web01/www", "web01/www", ""},
		{"a guest on all its hosts", "mail", "web01/mail db1/mail", ""},
		{"a set and a glob", "web0[1-2]/www*", "web01/www web01/www-cache web02/www", ""},
		{"a glob on all hosts", "*a*", "web01/mail web01/www-cache db1/mail", ""},
		{"all guests of a host", "web01/*", "web01/mail web01/www web01/www-cache", ""},
		{"all guests", "*", "web01/mail web01/www web01/www-cache web02/www web03/www web04/www db1/mail", ""},
		{"a pattern of hosts", "web:&fra:!web02/www", "web01/www web03/www", ""},
		{"labels of hosts", "site=fra,role=db/mail", "db1/mail", ""},
		{"several, each once", "web01/www,web02/www,web0?/www-cache,web01/www", "web01/www web01/www-cache web02/www", ""},
		{"a guest by name and one by host", "mail, web02/www", "web01/mail web02/www db1/mail", ""},
		{"several after one that has all of them", "*,web01/www", "web01/mail web01/www web01/www-cache web02/www web03/www web04/www db1/mail", ""},

		{"nothing", "", "", `pattern "" names no guest`},
		{"no guest", "web01/", "", `pattern "web01/" names no guest`},
		{"no host", "/www", "", `pattern "" has an empty part`},
		{"an unknown guest", "ww", "", `no guest matches "ww" (did you mean "www"?)`},
		{"an unknown guest on a host", "db1/mial", "", `no guest matches "db1/mial" (did you mean "mail"?)`},
		{"a guest that is elsewhere", "db1/www-cache", "", `no guest matches "db1/www-cache" (it is on web01)`},
		{"one of several that is unknown", "www,nail", "", `no guest matches "nail" (did you mean "mail"?)`},
		{"a set with a guest that is not there", "web01/www[1-2]", "", `no guest matches www1 of "web01/www[1-2]" (did you mean "www"?)`},
		{"a glob that matches nothing", "web01/x*", "", `no guest matches "web01/x*"`},
		{"an unknown host", "web1/www", "", `no host or group matches "web1" (did you mean "web01"?)`},
		{"a host for a guest", "web01", "", `no guest matches "web01" (for all guests there: web01/*)`},
		{"a group for a guest", "db", "", `no guest matches "db" (for all guests there: db/*)`},
		{"labels without guests", "site=fra", "", `pattern "site=fra" selects hosts, not guests (for all guests there: site=fra/*)`},
		{"a glob that is none", "web01/[", "", `pattern "[": a [ without a ], or a \ at the end`},
	} {
		t.Run(row.name, func(t *testing.T) {
			list, err := inv.SelectGuests(row.pattern)
			if text := errorText(t, err); text != row.err {
				t.Fatalf("SelectGuests(%q):\n got error %s\nwant       %s", row.pattern, text, row.err)
			}
			got := make([]string, len(list))
			for i, one := range list {
				got[i] = one.Host.Name + "/" + one.Guest.Name
			}
			if got := strings.Join(got, " "); got != row.want {
				t.Errorf("SelectGuests(%q) = %s, want %s", row.pattern, got, row.want)
			}
		})
	}
}
