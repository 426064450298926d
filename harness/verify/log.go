package verify

import (
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"meibench/harness/ledger"
)

// logged compares a committed run with the whole log, where it is at hand: the
// checkpoint of its receipt must be one of that log's history, the end of the
// run must be in it with these tables, and other attempts are shown.
func (k *check) logged(f *folder, head ledger.Head, digest, tables string) {
	for _, log := range k.o.Ledgers {
		if log.Head().Origin != head.Origin {
			continue
		}
		at := f.in("receipt.json", "")
		if err := log.Extends(head); err != nil {
			k.rep.say("V004", at, "%s", err)
			return
		}
		commits, attempts, ends, mine := 0, 0, 0, false
		for _, e := range log.Entries() {
			switch {
			case e.Kind == ledger.Plan && e.Digest == digest:
				commits++
			case e.Kind == ledger.Attempt && e.Of == digest:
				attempts++
			case e.Kind == ledger.Result && e.Of == digest:
				ends++
				mine = mine || e.Digest == tables
			}
		}
		if commits > 1 || attempts > 1 {
			k.rep.say("V007", at, "%s", fmt.Sprintf("the log has %d commitments of this plan and %d attempts at it: this is one of them", commits, attempts))
		}
		if ends > 0 && !mine {
			k.rep.say("V004", at, "the log has %d run(s) of this plan that ended, none with these tables", ends)
		}
		return
	}
}

// verifiers are the keys of all logs that are known.
func (o *Options) verifiers() note.Verifiers {
	list := slices.Clone(o.Logs)
	for _, l := range o.Ledgers {
		list = append(list, l.Verifier())
	}
	return note.VerifierList(list...)
}
