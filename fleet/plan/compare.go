package plan

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// difference is one setting that a guest has otherwise than it should.
type difference struct {
	text    string // "ports 80/tcp → 80/tcp, 443/tcp"
	restart bool   // a running guest has it only after a restart; else at once
	stop    bool   // it cannot be changed while the guest runs
}

// differences compares a guest as it should be with what its host has. Both
// are brought to one form first: a host may leave out what is the default. was
// and is are what people call their images; controllers are the host's.
func differences(want, have api.Guest, was, is string, controllers []string) []difference {
	var list []difference
	if (want.Image != have.Image || want.Image == "") && was != is {
		list = append(list, difference{text: changeOf("image", was, is), restart: true})
	}
	if want.Context != have.Context {
		list = append(list, difference{text: changeOf("context", strconv.Itoa(have.Context), strconv.Itoa(want.Context)), restart: true, stop: true})
	}
	for _, row := range setting.Table {
		if !row.Same(&have, &want) {
			list = append(list, difference{text: row.Change(&have, &want), restart: !row.AtOnce(&have, &want, controllers)})
		}
	}
	return list
}

func changeOf(name, from, to string) string {
	return fmt.Sprintf("%s %s → %s", name, cmp.Or(from, "none"), cmp.Or(to, "none"))
}
