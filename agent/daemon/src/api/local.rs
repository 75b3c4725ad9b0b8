//! `/v1/local`: the VMs of this machine, for which no quorum is needed.

use axum::Json;
use axum::extract::{Path, State};
use blixard_model::VmName;
use blixard_model::local::{LocalListing, LocalSource, LocalStop};
use blixard_node::SubmitError;

use super::super::local_view;
use super::request::{Api, ApiResult, id};

pub(super) async fn list(State(Api { agent, .. }): State<Api>) -> ApiResult<Json<LocalListing>> {
    let looked = agent.host.look_at_member_now(|member, now| local_view::by_agent(&member.local_vms(now)));
    Ok(Json(looked.await.map_err(SubmitError::from)?))
}

pub(super) async fn stop(
    State(Api { agent, .. }): State<Api>,
    Path(name): Path<String>,
) -> ApiResult<Json<LocalStop>> {
    let name: VmName = id(&name)?;
    agent.host.stop_here(name.clone()).await??;
    let vm = name.clone();
    let looked =
        agent.host.look_at_member(move |member| local_view::may_start_elsewhere(member.state(), &vm));
    let may_start_elsewhere = looked.await.map_err(SubmitError::from)?;
    tracing::info!(
        VM = %name,
        "VM {name} is stopped by hand on this node, and stays so until `blixard vm start {name}`{}",
        if may_start_elsewhere { "; the cluster does not know yet, and may start it elsewhere" } else { "" }
    );
    Ok(Json(LocalStop { name, source: LocalSource::Agent, may_start_elsewhere }))
}
