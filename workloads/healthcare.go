package workloads

import (
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
)

const aciBench = "ACI-BENCH, 207 encounters (wyim/aci-bench @ b909b2bb9cf1), moments of ln words"

var patientData = Privacy{Class: "special category (health)", Zone: PremisesZone, Kind: sourced.Assumed,
	Source: "raw text may not leave the premises: our reading of GDPR Art. 9 and HIPAA 45 CFR 164.312, not legal advice"}

// healthcare writes a visit note from the dialogue of doctor and patient.
var healthcare = App{
	Name: "healthcare", About: "visit notes from the dialogue of doctor and patient", Task: "healthcare",
	Scenario: Server, Privacy: patientData,
	Arrivals: arrival.Spec{Kind: arrival.Poisson, Rate: assumed(1, "1/s", "a unit: Poisson has no shape"),
		Day: arrival.Day{Hourly: []float64{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0},
			Start: 9, Kind: sourced.Assumed, Source: "chosen: office hours from 8 to 18 with a lunch break"}},
	PerUser: assumed(1.0/900, "1/s", "chosen: a clinician sees a patient every 15 minutes"),
	Prompt:  words(7.126, 0.299, aciBench+" of dialogues"),
	Output:  words(6.006, 0.333, aciBench+" of notes"),
	Rho:     measured(0.65, "1", "ACI-BENCH, Pearson correlation of ln words of dialogue and note"),
	Think:   pause(60), BytesPerToken: textBytes,
	Limits: []Limit{
		{E2E, "", 0.95, assumed(60, "s", "design target of 10 to 60 s; no standard")},
	},
	Facts: []sourced.Named{
		fact("tachycardia alarm delay limit", spec(11, "s", "IEC 60601-2-27 201.7.9.2.9.101 b)6) as stated in the Mindray uMEC10 manual")),
		fact("measured alarm delay", paper(9.9, "s", "GE B20 manual: 4.4 to 9.9 s")),
	},
}

// healthcareMonitor explains an early-warning score at the bedside.
var healthcareMonitor = App{
	Name: "healthcare-monitor", About: "early-warning scores from vital signs at the bedside", Task: "healthcare",
	Scenario: Periodic, Privacy: patientData,
	Arrivals: arrival.Spec{Kind: arrival.Periodic,
		Period: assumed(60, "s", "chosen: one assessment a minute and patient"),
		Jitter: assumed(1, "s", "chosen")},
	Prompt:     constant(assumed(96, "token", "chosen: seven vital signs with names and units")),
	Output:     constant(assumed(24, "token", "chosen: a score and one sentence")),
	SensorKind: "vitals", Sensor: constant(assumed(90_000, "B", "chosen: 10 s of ECG, 12 leads x 500 Hz x 12 bit = 72 kbit/s")),

	BytesPerToken: textBytes,
	Limits: []Limit{
		{E2E, "", 1, spec(11, "s", "IEC 60601-2-27 201.7.9.2.9.101 b)6), tachycardia alarm, as stated in the Mindray uMEC10 manual")},
	},
}
