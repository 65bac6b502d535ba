//! Requests, and whether a start fits the account.
//!
//! Owns: the account's only writer. Promises: a claim is held from the start's admission until the tree is proven gone,
//! over restarts and backoff; a start that doesn't fit changes nothing. Never: measures.

use super::RootState;
use crate::facts::claim;
use lair_supervision::{
    Admission, Child, ChildEvent, ChildId, DeniedReason, Measured, Origin, Shortage,
};

impl RootState {
    pub(super) async fn ask(
        &mut self,
        id: &ChildId,
        event: ChildEvent,
        origin: Origin,
        measured: &Measured,
    ) -> (Admission, Option<Box<Shortage>>) {
        let Some(known) = self.children.get(id) else {
            return (Admission::Denied(DeniedReason::UnknownModule), None);
        };
        let starts = matches!(
            event,
            ChildEvent::StartRequested | ChildEvent::RestartRequested { .. }
        );
        if starts && self.drain.is_some() {
            return (Admission::Denied(DeniedReason::Draining), None);
        }
        // What is not down holds its claim already, whatever becomes of this request.
        if starts && known.child.is_down() {
            let claim = claim(&known.plan.limits);
            let judged = self
                .args
                .board
                .with_account(|account| account.judge(id, &claim, measured));
            if let Err(short) = judged {
                return (Admission::Denied(DeniedReason::Overcommitted), Some(short));
            }
        }
        // Only requests reach this, and each of them is answered by the core.
        let answer = self.step(id, None, event, Some(origin)).await;
        (
            answer.unwrap_or(Admission::Denied(DeniedReason::Busy)),
            None,
        )
    }

    /// Brings the account to what is known of a child: it holds its claim while it is not down, however it came up, and
    /// after that while something of its tree is left.
    pub(super) fn settle_account(&mut self, id: &ChildId) {
        let known = self.children.get(id);
        let board = &self.args.board;
        match known {
            Some(known) if !known.child.is_down() => {
                let claim = claim(&known.plan.limits);
                board.with_account(|account| account.hold(id, claim));
            }
            Some(known) if is_left(&known.child) => board.with_account(|account| account.leave(id)),
            Some(_) | None => board.with_account(|account| account.release(id)),
        }
    }
}

/// Something of its last run lives on. A port that is taken holds no memory.
fn is_left(child: &Child) -> bool {
    let exit = child
        .last_exit
        .as_ref()
        .filter(|exit| exit.inc == child.inc);
    exit.is_some_and(|exit| {
        let mut left = exit.evidence.leftover.iter();
        left.any(|what| !what.starts_with("port "))
    })
}
