package rng

// Made once by this package on amd64 and confirmed on arm64 under emulation by
// scripts/arm64.sh; they guard the schedule, not the theory (TestMoments does).
const (
	vecExp        = 0.24031027791451892
	vecNormal     = -0.2867150069600778
	vecGammaSmall = 0.9587726401277249
	vecGamma      = 0.8473182142939839
	vecWeibull    = 0.02862272819954619
	vecLuck       = 0.36074308746812633
)
