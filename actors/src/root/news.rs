//! News of containers, as events.

use super::RootState;
use crate::backend::container::News;
use crate::pump::StreamKey;
use lair_supervision::{ChildId, NoticeKind, Origin};

impl RootState {
    /// Publishes them; what is missing in a log is said in the log as well.
    pub(super) fn tell_news(&mut self, id: &ChildId, inc: u64, news: News) {
        let kind = match news {
            News::Pulling(progress) => NoticeKind::Pulling { progress },
            News::Reclaimed(what) => NoticeKind::Reclaimed { what },
            News::Differs(what) => NoticeKind::Differs { what },
            News::Missed(what) => {
                let key = StreamKey {
                    module: id.shared(),
                    run: inc,
                };
                self.pump.remark(key, what.clone());
                NoticeKind::Differs { what: vec![what] }
            }
        };
        self.publish_for(id, inc, kind, Origin::Observed);
    }
}
