//! The rules of `services`: what is declared once, and named where it is used.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_saphyr::Location;

use super::Checked;
use super::values::{argv, name, period, quoted, unit};
use crate::config::raw::{self, At, Wrong};
use crate::services::{Reload, Service, ServiceKind};

/// How long a command of a service may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long services may be frozen.
pub(in crate::config) const FREEZE_MAX: Duration = Duration::from_secs(5 * 60);

/// What became of `services`.
pub(super) struct Services {
    pub(super) declared: Vec<Service>,
    pub(super) stopped: Vec<Service>,
    pub(super) frozen: Vec<Service>,
    pub(super) freeze_max: Duration,
    pub(super) reload: Option<Reload>,
}

pub(super) fn services(services: raw::Services) -> Checked<Services> {
    let timeout = period(services.timeout, SERVICE_TIMEOUT)?;
    let reload = services.reload.map(|reload| self::reload(reload, timeout)).transpose()?;
    let mut declared: Vec<Service> = Vec::new();
    for unit in services.units {
        let (place, unit) = (unit.place, self::unit(unit)?);
        declare(&mut declared, place, Service { name: unit.clone(), kind: ServiceKind::Unit { unit }, timeout })?;
    }
    for (name, commands) in services.commands.0 {
        let name = self::name(name)?;
        let kind = self::commands(name.place, commands)?;
        declare(&mut declared, name.place, Service { name: name.value, kind, timeout })?;
    }
    let stopped = match services.restore_stop {
        Some(stopped) => chosen(&declared, stopped)?,
        None => declared.clone(),
    };
    let frozen = chosen(&declared, services.freeze)?;
    let freeze_max = period(services.freeze_max, FREEZE_MAX)?;
    Ok(Services { declared, stopped, frozen, freeze_max, reload })
}

fn commands(place: Location, commands: raw::Commands) -> Checked<ServiceKind> {
    let missing = match (&commands.freeze, &commands.thaw) {
        (Some(_), None) => Some("thaw"),
        (None, Some(_)) => Some("freeze"),
        _ => None,
    };
    if let Some(missing) = missing {
        return Err(Wrong::at(place, format!("the key `{missing}` is missing, expected both `freeze` and `thaw`")));
    }
    Ok(ServiceKind::Commands {
        stop: argv(commands.stop)?,
        start: argv(commands.start)?,
        status: commands.status.map(argv).transpose()?,
        freeze: commands.freeze.map(argv).transpose()?,
        thaw: commands.thaw.map(argv).transpose()?,
    })
}

fn declare(declared: &mut Vec<Service>, place: Location, service: Service) -> Checked<()> {
    if declared.iter().any(|other| other.name == service.name) {
        let what = format!("there are two services {}, expected one of each name", quoted(&service.name));
        return Err(Wrong::at(place, what));
    }
    declared.push(service);
    Ok(())
}

/// The declared services of these names, in this order.
pub(super) fn chosen(declared: &[Service], names: Vec<At<String>>) -> Checked<Vec<Service>> {
    let mut seen = BTreeSet::new();
    let mut chosen = Vec::new();
    for name in names {
        let Some(service) = declared.iter().find(|service| service.name == name.value) else {
            let known: Vec<&str> = declared.iter().map(|service| service.name.as_str()).collect();
            return Err(Wrong::at(name.place, raw::unknown("service", &name.value, &known)));
        };
        if !seen.insert(&service.name) {
            let what = format!("{} stands twice, expected each service once", quoted(&name.value));
            return Err(Wrong::at(name.place, what));
        }
        chosen.push(service.clone());
    }
    Ok(chosen)
}

fn reload(reload: raw::Reload, timeout: Duration) -> Checked<Reload> {
    Ok(Reload { run: argv(reload.run)?, warn_only: reload.on_failure == raw::OnFailure::Warn, timeout })
}
