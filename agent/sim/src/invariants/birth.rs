//! One birth: all nodes of a list begin with the same genesis.

use blixard_model::formation::Genesis;

#[derive(Debug, Default)]
pub(crate) struct OneBirth(Option<Genesis>);

impl OneBirth {
    pub(crate) fn check(&mut self, genesis: &Genesis) -> Result<(), String> {
        let known = self.0.get_or_insert_with(|| genesis.clone());
        if known == genesis { Ok(()) } else { Err(format!("two births: {known:?} and {genesis:?}")) }
    }
}
