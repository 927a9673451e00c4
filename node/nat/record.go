package nat

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// record is the state that the last Sync left, for which conntrack has been cleared
// as well. It is stored in the lock file. Until somebody changes a packet filter of
// the host, it is also what the tables hold, so that they need not be read, which
// takes longer the more guests there are.
type record struct {
	Layout     string `json:"layout"`     // its version
	Generation uint32 `json:"generation"` // of the host's packet filters; 0: not known
	Want       Want   `json:"want"`
}

// readRecord returns an empty record if the file is empty, incomplete after a kill,
// or written by another version of vsnode.
func readRecord() (record, error) {
	b, err := os.ReadFile(lockPath)
	if err != nil {
		return record{}, fmt.Errorf("read what private networks there were: %w", err)
	}
	var r record
	if json.Unmarshal(b, &r) != nil {
		return record{}, nil
	}
	return r, nil
}

// write overwrites the file instead of renaming a new one, because this file is locked.
func (r record) write() error {
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(lockPath, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write what private networks there are: %w", err)
	}
	return nil
}

// generation returns a number that increases by one with each change of a packet
// filter in this network namespace, whoever makes it.
func generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err == nil && len(msgs) != 1 {
		err = fmt.Errorf("%d answers", len(msgs))
	}
	if err == nil && len(msgs[0]) < nl.SizeofNfgenmsg {
		err = errors.New("a short answer")
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of packet filters: %w", err)
	}
	for kind, value := range attributes(msgs[0][nl.SizeofNfgenmsg:]) {
		if kind == unix.NFTA_GEN_ID && len(value) == 4 {
			return binary.BigEndian.Uint32(value), nil
		}
	}
	return 0, errors.New("ask for the generation of packet filters: no number in the answer")
}
