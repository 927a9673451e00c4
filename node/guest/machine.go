package guest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// What a guest's init finds out about its machine, as systemd's container interface has
// it (https://systemd.io/CONTAINER_INTERFACE): the variables container, container_uuid,
// NOTIFY_SOCKET (notify.go) and CREDENTIALS_DIRECTORY (credentials.go), and files in
// /run/host.

// manager is what the guest's programs call this kind of container
// (systemd-detect-virt).
const manager = "vserver"

// describe adds the container interface to the spec of a guest.
func (h *Host) describe(sp *procctx.Spec, c Config) error {
	files := map[string]string{"host/container-manager": manager}
	if id := machineID(c.Name); id != "" && !hasVariable(sp.Env, "container_uuid") {
		sp.Env = append(sp.Env, "container_uuid="+id)
		files["host/container-uuid"] = id
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sp.Run = append(sp.Run, procctx.RunFile{Name: name, Mode: 0o444, Content: []byte(files[name])})
	}
	if styleOf(c.Init.Style).start == rcScript {
		sp.Run = append(sp.Run, procctx.RunFile{Name: "utmp", Mode: 0o664, Content: runlevelRecord(c.runlevel())})
	}
	return h.giveCredentials(sp, c.Name)
}

// hostMachineID is replaced by tests.
var hostMachineID = "/etc/machine-id"

// machineID returns the UUID that systemd and others make /etc/machine-id of at the
// first start: the same for each start of a guest here, and no other guest's. It does
// not give away the host's own (machine-id(5), "confidential"). "": the host has none.
func machineID(name string) string {
	b, err := linux.ReadFile(hostMachineID)
	host := strings.TrimSpace(string(b))
	if err != nil || len(host) != 32 {
		return ""
	}
	sum := sha256.Sum256([]byte("vserver " + host + " " + name))
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // as a random UUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// runlevelRecord returns a file utmp(5) in which runlevel(8) finds the runlevel of a
// guest whose init does not write one. Linux-VServer called it fakerunlevel.
func runlevelRecord(level string) []byte {
	const (
		size, runLevel      = 384, 1
		line, id, user      = 8, 40, 44
		pidAt, previousNone = 4, 'N'
	)
	record := make([]byte, size)
	binary.NativeEndian.PutUint16(record, runLevel)
	binary.NativeEndian.PutUint32(record[pidAt:], uint32(level[0])|previousNone<<8)
	copy(record[line:], "~")
	copy(record[id:], "~~")
	copy(record[user:], "runlevel")
	return record
}
