package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// trapTable is the nftables table that is ours alone, in the inet family.
const trapTable = "xcarp"

// trapTime is how long after a promotion an unknown connection is met with
// silence instead of a reset.
const trapTime = 5 * time.Second

// A rstTrap keeps a router from killing the connections it was to save. One that
// owns a shared address but has not got a connection's entry would let its own
// TCP answer RST. While an address is in the trap, TCP to it that is not a SYN
// and that conntrack does not know is dropped before the local stack sees it.
//
// The rule lives in a table of our own and is made anew each time, so that a
// `flush ruleset` by the operator costs nothing but the seconds since.
type rstTrap struct {
	conn *nftables.Conn
}

// newRSTTrap opens the netlink socket in the caller's network namespace.
func newRSTTrap() (*rstTrap, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &rstTrap{conn: c}, nil
}

// Set puts the addresses into the trap for the time; without a time they stay
// until the next Set or Remove. It replaces what was there.
func (t *rstTrap) Set(addrs []netip.Addr, d time.Duration) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: trapTable}
	t.conn.AddTable(table) // so that the deletion always finds it
	t.conn.DelTable(table)
	t.conn.AddTable(table)
	chain := t.conn.AddChain(&nftables.Chain{
		Name:     "input",
		Table:    table,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookInput,
		Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 10), // before any filter that might reject
	})
	for _, family := range []trapFamily{
		{name: "shared4", key: nftables.TypeIPAddr, proto: unix.NFPROTO_IPV4, offset: 16, len: 4, is: netip.Addr.Is4},
		{name: "shared6", key: nftables.TypeIP6Addr, proto: unix.NFPROTO_IPV6, offset: 24, len: 16, is: netip.Addr.Is6},
	} {
		set := &nftables.Set{Table: table, Name: family.name, KeyType: family.key, HasTimeout: true}
		if err := t.conn.AddSet(set, family.elements(addrs, d)); err != nil {
			return fmt.Errorf("set of trapped addresses: %w", err)
		}
		t.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: family.rule(set)})
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("set the RST trap: %w", err)
	}
	return nil
}

// Remove takes the table off the box.
func (t *rstTrap) Remove() error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: trapTable}
	t.conn.AddTable(table)
	t.conn.DelTable(table)
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("remove the RST trap: %w", err)
	}
	return nil
}

// There says whether the table is on the box.
func (t *rstTrap) There() (bool, error) {
	all, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables: %w", err)
	}
	return slices.ContainsFunc(all, func(o *nftables.Table) bool { return o.Name == trapTable }), nil
}

// Close closes the socket and leaves the table.
func (t *rstTrap) Close() error { return t.conn.CloseLasting() }

// trapFamily is where an address family keeps its destination address.
type trapFamily struct {
	name        string
	key         nftables.SetDatatype
	proto       byte
	offset, len uint32
	is          func(netip.Addr) bool
}

func (f trapFamily) elements(addrs []netip.Addr, d time.Duration) []nftables.SetElement {
	var e []nftables.SetElement
	for _, a := range addrs {
		if f.is(a) {
			e = append(e, nftables.SetElement{Key: a.AsSlice(), Timeout: d})
		}
	}
	return e
}

// rule is: meta nfproto F meta l4proto tcp ip daddr @set
// tcp flags & (syn|ack) != syn ct state { invalid, new, untracked } counter drop
func (f trapFamily) rule(set *nftables.Set) []expr.Any {
	const synAck, syn = 0x12, 0x02
	const unknown = expr.CtStateBitINVALID | expr.CtStateBitNEW | expr.CtStateBitUNTRACKED
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.len},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{synAck}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{syn}},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(unknown), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
